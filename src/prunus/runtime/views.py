"""Which tensors lie inside another one's memory, so that nothing is copied: pieces of a concatenation in what it makes,
pieces of a split or slice in what they are cut from, and reshaped tensors where they were.

A producer writes to its place in the larger tensor, for that is only an address and strides. What is wanted at two
places is copied to the second.
"""

import math
from collections.abc import Mapping

from prunus.runtime.layout import Layout, Shape
from prunus.runtime.program import Op, Program, outside_tensors

Places = dict[str, tuple[str, int]]  # tensor -> the one that it lies in, and where


def channel_views(program: Program, shapes: Mapping[str, Shape], flat: set[str]) -> Places:
    """Feature maps in another one's planes: tensor -> (that one, first channel there). That one may be in here too.

    `flat`: tensors that aren't planar.
    """
    parents: Places = {}
    concats: list[Op] = []
    for op in program.ops:
        out = op.outputs[0]
        if op.kind == "concat" and out not in flat and _axis(op, shapes) == 1:
            _claim(op, concats, shapes, flat, parents)
            concats.append(op)
    for op in program.ops:
        if op.inputs and op.inputs[0] not in flat:
            for name, axis, start in _cuts(op, shapes):
                if axis == 1 and name not in flat and name not in parents:
                    parents[name] = (op.inputs[0], start)
    return parents


def _claim(op: Op, before: list[Op], shapes: Mapping[str, Shape], flat: set[str], parents: Places) -> None:
    """Put a concatenation's inputs into its output, those that are free. Where they begin with all that an earlier one
    has, as from layer to layer of a dense block, that one's output is put there as a whole."""
    channel = i = 0
    while i < len(op.inputs):
        alike = [
            other for other in before
            if other.inputs == op.inputs[i : i + len(other.inputs)] and other.outputs[0] not in parents
        ]  # fmt: skip
        name, n = op.inputs[i], 1
        if alike:
            largest = max(alike, key=lambda other: len(other.inputs))
            name, n = largest.outputs[0], len(largest.inputs)
        if name not in flat and name not in parents:
            parents[name] = (op.outputs[0], channel)
        channel += shapes[name][1]
        i += n


def root_of(name: str, parents: Places) -> tuple[str, int]:
    """The outermost tensor that holds this one, and the first channel there."""
    channel = 0
    while name in parents:
        name, start = parents[name]
        channel += start
    return name, channel


def flat_views(program: Program, layouts: Mapping[str, Layout], flat: set[str], views: Places) -> None:
    """Add contiguous tensors in another one's buffer to `views`: tensor -> (buffer, element where that begins).

    Pieces lie side by side where all axes before the one that they are put together by are 1.
    """
    shapes = {name: layout.shape for name, layout in layouts.items()}
    made_elsewhere = {*program.inputs, *outside_tensors(program)}
    made_elsewhere |= {name for op in program.ops if op.kind == "onnxruntime" for name in op.outputs}
    for op in reversed(program.ops):  # an outer concatenation first
        x, out = op.inputs[0] if op.inputs else "", op.outputs[0]
        if op.kind == "concat" and out in flat and math.prod(shapes[out][: _axis(op, shapes)]) == 1:
            (buffer, start), taken = views.get(out, (out, 0)), {*made_elsewhere, *views}
            for name in op.inputs:
                if name in flat and name not in taken:
                    views[name] = (buffer, start)
                    taken.add(name)
                start += math.prod(shapes[name])
        elif op.kind in ("reshape", "identity") and out in views and {x, out} <= flat - made_elsewhere:
            views.setdefault(x, views[out])
    for op in program.ops:
        x, out = op.inputs[0] if op.inputs else "", op.outputs[0]
        if not op.inputs or not layouts[x].contiguous or x in made_elsewhere:
            continue
        buffer, start = views.get(x, (x, 0))
        if op.kind in ("reshape", "identity") and layouts[out].contiguous and out not in views:
            views[out] = (buffer, start)
        for name, axis, first in _cuts(op, shapes):
            if {x, name} <= flat and name not in views and math.prod(shapes[x][:axis]) == 1:
                views[name] = (buffer, start + first * math.prod(shapes[x][axis + 1 :]))


def _axis(op: Op, shapes: Mapping[str, Shape]) -> int:
    return int(op.attrs["axis"]) % len(shapes[op.outputs[0]])


def _cuts(op: Op, shapes: Mapping[str, Shape]) -> list[tuple[str, int, int]]:
    """Outputs that are a range of the input along one axis: name, axis, first index."""
    shape = shapes[op.inputs[0]] if op.inputs else ()
    if op.kind == "split":
        axis, start, cuts = int(op.attrs["axis"]) % len(shape), 0, []
        for name, size in zip(op.outputs, op.attrs["sizes"], strict=True):
            cuts.append((name, axis, start))
            start += size
        return cuts
    if op.kind != "slice" or any(step != 1 for step in op.attrs["steps"]):
        return []
    cut = [axis for axis, (a, b) in enumerate(zip(shape, shapes[op.outputs[0]], strict=True)) if a != b]
    return [(op.outputs[0], cut[0], int(op.attrs["starts"][cut[0]]))] if len(cut) == 1 else []
