"""Converters of operators that only move elements."""

import numpy as np

from prunus.graph.ir import Node
from prunus.graph.onnx_node import OnnxNode, static_shape
from prunus.sparsity.refusal import Refusal


def reshape(n: OnnxNode) -> list[Node] | Refusal:
    """Reshape, Flatten, Squeeze, Unsqueeze: all say the output's shape, which is inferred."""
    return n.node("reshape", (n.input(),), shape=n.out_shape)


def identity(n: OnnxNode) -> list[Node] | Refusal:
    """Identity, Dropout at inference, Cast to the same type."""
    if len(n.outputs) > 1 and n.outputs[1].name and n.outputs[1].uses():
        return Refusal("the mask as an output")
    return [Node("identity", n.name, (n.input(),), (n.output,), {})]


def transpose(n: OnnxNode) -> list[Node] | Refusal:
    """Transpose."""
    rank = len(n.shape())
    return n.node("transpose", (n.input(),), perm=tuple(n.attr("perm", range(rank - 1, -1, -1))))


def concat(n: OnnxNode) -> list[Node] | Refusal:
    """Concat of values that flow."""
    if any(n.const(i) is not None for i in range(len(n.inputs))):
        return Refusal("a constant piece")
    return n.node("concat", tuple(n.input(i) for i in range(len(n.inputs))), axis=n.attr("axis") % len(n.out_shape))


def split(n: OnnxNode) -> list[Node] | Refusal:
    """Split; the sizes are those of the outputs."""
    axis = n.attr("axis", 0) % len(n.shape())
    return n.node("split", (n.input(),), axis=axis, sizes=tuple(static_shape(o)[axis] for o in n.outputs))


def slice_(n: OnnxNode) -> list[Node] | Refusal:
    """Slice with positive steps."""
    starts, ends, axes, steps = (n.numbers(a, i) for i, a in enumerate(("starts", "ends", "axes", "steps"), 1))
    for found in (starts, ends, axes, steps):
        if isinstance(found, Refusal):
            return found
    assert isinstance(starts, list) and isinstance(ends, list)
    shape = n.shape()
    places = axes if isinstance(axes, list) else range(len(starts))
    strides = steps if isinstance(steps, list) else [1] * len(starts)
    begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, a, b, s in zip(places, starts, ends, strides, strict=True):
        if s < 1:
            return Refusal(f"step {s}")
        begin[axis], end[axis], step[axis] = (*slice(a, b).indices(shape[axis])[:2], s)
    return n.node("slice", (n.input(),), starts=tuple(begin), ends=tuple(end), steps=tuple(step))


def gather(n: OnnxNode) -> list[Node] | Refusal:
    """Gather of one entry, or of entries in equal steps upwards: a slice."""
    indices = n.const(1)
    if indices is None or n.const(0) is not None:
        return Refusal("the indices aren't constant" if indices is None else "a constant table")
    shape = n.shape()
    axis = n.attr("axis", 0) % len(shape)
    places = indices.ravel().astype(np.int64)
    if not places.size or places.min() < -shape[axis] or places.max() >= shape[axis]:
        return Refusal(f"indices outside of {shape[axis]} entries, or none")
    places = np.where(places < 0, places + shape[axis], places)
    steps = set(np.diff(places).tolist()) or {1}
    step = steps.pop()
    if steps or step < 1:
        return Refusal("indices that don't go upwards in equal steps")
    starts, ends, strides = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], ends[axis], strides[axis] = int(places[0]), int(places[-1]) + 1, step
    sizes = (*shape[:axis], len(places), *shape[axis + 1 :])
    piece = n.conversion.value(f"{n.output}.piece", sizes)
    cut = {"starts": tuple(starts), "ends": tuple(ends), "steps": tuple(strides)}
    out_shape = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    return [
        Node("slice", f"{n.name}:{piece}", (n.input(),), (piece,), cut),
        *n.node("reshape", (piece,), shape=out_shape),
    ]


def pad(n: OnnxNode) -> list[Node] | Refusal:
    """Pad by a constant anywhere, or by reflection or edges on the last two of four axes."""
    pads, value, axes = n.numbers("pads", 1), n.numbers("value", 2), n.numbers("axes", 3)
    for found in (pads, value, axes):
        if isinstance(found, Refusal):
            return found
    assert isinstance(pads, list)
    rank, mode = len(n.shape()), n.attr("mode", "constant")
    places = [int(a) % rank for a in axes] if isinstance(axes, list) else list(range(rank))
    both = [(0, 0)] * rank
    for i, axis in enumerate(places):
        both[axis] = (int(pads[i]), int(pads[i + len(places)]))
    if any(p < 0 for pair in both for p in pair):
        return Refusal("negative pads")
    if mode not in ("constant", "reflect", "edge"):
        return Refusal(f"mode {mode}")
    if mode != "constant" and (rank != 4 or any(p for pair in both[:2] for p in pair)):
        return Refusal(f"mode {mode} on other axes than the last two of four")
    number = float(value[0]) if isinstance(value, list) and value else 0.0
    return n.node("pad", (n.input(),), pads=tuple(both), mode=mode, value=number)
