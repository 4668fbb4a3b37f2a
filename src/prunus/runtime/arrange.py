"""Decides how every tensor of a program lies in memory: which are planar, at what pitch, and which share memory."""

from collections.abc import Iterable, Mapping

from prunus.runtime.layout import Layout, Shape, channels_of, contiguous, planar, up
from prunus.runtime.lower.layer import in_steps, taps
from prunus.runtime.program import Program, outside_tensors
from prunus.runtime.views import channel_views, flat_views, root_of

Margins = tuple[int, int, int, int]  # top, left, bottom, right


def arrange(program: Program, batch: int) -> tuple[dict[str, Layout], dict[str, tuple[str, int]]]:
    """Layout of each tensor, and for tensors inside another one's buffer that buffer and the offset in it.

    Pitches are equal along chains of stride-1 convolutions and residuals, and as wide as the widest padding asks.
    What is computed element by element from what nobody reads later lies like it, so that it can be written over it,
    unless that would make convolutions compute more.
    """
    shapes = {name: program.words(name, batch) for name in program.tensors}
    flat = _contiguous_tensors(program, shapes)
    parents = channel_views(program, shapes, flat)
    root = {name: root_of(name, parents)[0] for name in shapes}
    groups = _Groups(shapes)
    margins: dict[str, Margins] = {}
    pitch: dict[str, int] = {}

    def widen(name: str, needed: int) -> None:
        pitch[root[name]] = max(pitch.get(root[name], 0), needed)

    for name, shape in shapes.items():
        if name not in flat:
            widen(name, shape[3])
            groups.join(name, root[name])
    for op in program.ops:
        out = op.outputs[0]
        if op.kind != "conv" or out in flat:
            continue
        x, (top, left, bottom, right) = op.inputs[0], op.attrs["pads"]
        alone = op.attrs["choice"]["encoding"] == "depthwise" or in_steps(op, shapes[out])  # at any two pitches
        if (alone or tuple(op.attrs["strides"]) == (1, 1)) and x not in flat:
            if not alone:
                groups.join(x, out)
            widen(x, shapes[x][3] + max(left, right))
            margins[root[x]] = _larger(margins.get(root[x], (0, 0, 0, 0)), (top, left, bottom, right))
        elif not alone:
            columns = taps(op.attrs["kernel"][1], op.attrs["strides"][1], left, op.attrs["dilations"][1])
            widen(out, shapes[out][3] + columns.high - columns.low)
        if len(op.inputs) > 1:
            groups.join(op.inputs[1], out)
    widest: dict[str, int] = {}
    for name, needed in pitch.items():
        group = groups.of(name)
        widest[group] = max(widest.get(group, 0), needed)
    busy = {
        groups.of(op.outputs[0])
        for op in program.ops
        if op.kind == "conv" and op.attrs["choice"]["encoding"] != "depthwise"
    }  # wider rows would take them longer
    kin = _Groups(shapes)
    for x, out in _successors(program, shapes, {*flat, *parents}):
        narrow, wide = sorted((groups.of(x), groups.of(out)), key=lambda group: widest[group])
        if widest[narrow] < widest[wide] and narrow not in busy:
            groups.join(narrow, wide)
        if widest[groups.of(x)] == widest[groups.of(out)]:
            kin.join(x, out)
    for name in list(margins):
        margins[kin.of(name)] = _larger(margins.get(kin.of(name), (0, 0, 0, 0)), margins[name])
    widest = {
        group: whole_vectors(
            pitch, [s for name, s in shapes.items() if name not in flat and groups.of(name) == group], program.lanes
        )
        for group, pitch in widest.items()
    }
    banded = {kin.of(root[program.ops[chain.last].outputs[0]]) for chain in program.chains}
    layouts: dict[str, Layout] = {}
    views: dict[str, tuple[str, int]] = {}
    for name, shape in shapes.items():
        if name in flat:
            layouts[name] = contiguous(shape)
        elif root[name] == name:
            around, in_bands = margins.get(kin.of(name), (0, 0, 0, 0)), kin.of(name) in banded
            layouts[name] = planar(shape, widest[groups.of(name)], *around, in_bands=in_bands)
    for name in shapes:
        if name not in layouts:
            top, channel = root_of(name, parents)
            layouts[name] = channels_of(layouts[top], shapes[name], channel)
            views[name] = (top, 0)
    flat_views(program, layouts, flat, views)
    return layouts, views


def _successors(program: Program, shapes: Mapping[str, Shape], fixed: set[str]) -> list[tuple[str, str]]:
    """Pairs of tensors: the last that reads the first makes the second of it, element by element."""
    last = {name: i for i, op in enumerate(program.ops) for name in op.inputs} | dict.fromkeys(program.outputs, -1)
    pairs = []
    for i, op in enumerate(program.ops):
        out = op.outputs[0]
        if op.kind in ("activation", "binary", "scale_shift") and out not in fixed:
            mine = [x for x in op.inputs if x not in fixed and shapes[x] == shapes[out] and last[x] == i]
            pairs += [(x, out) for x in mine[:1]]
    return pairs


def whole_vectors(pitch: int, shapes: Iterable[Shape], lanes: int) -> int:
    """The next pitch of whole vectors, where planes take no more vectors for it: a window one row up or down is then as
    well aligned as one that isn't shifted."""
    wide = up(pitch, lanes)
    same = all(-(-((h - 1) * pitch + w) // lanes) == -(-((h - 1) * wide + w) // lanes) for _, _, h, w in shapes)
    return wide if same else pitch


def _contiguous_tensors(program: Program, shapes: Mapping[str, Shape]) -> set[str]:
    """Tensors in C order: what the caller or another engine makes, and all but feature maps of more than one pixel."""
    flat = {name for name, shape in shapes.items() if len(shape) != 4 or shape[2] * shape[3] == 1}
    flat |= {*program.inputs, *outside_tensors(program)}
    flat |= {name for op in program.ops if op.kind == "onnxruntime" for name in op.outputs}
    for op in program.ops:
        if op.kind == "conv" and op.outputs[0] not in flat:
            # the epilogue reads the residual as it writes the output
            assert len(op.inputs) < 2 or op.inputs[1] not in flat, f"{op.name}: residual {op.inputs[1]} is contiguous"
    return flat


def _larger(a: Margins, b: Margins) -> Margins:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


class _Groups:
    """Disjoint sets of tensors."""

    def __init__(self, names: Mapping[str, Shape]) -> None:
        self.parent = {name: name for name in names}

    def of(self, name: str) -> str:
        while self.parent[name] != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, a: str, b: str) -> None:
        self.parent[self.of(a)] = self.of(b)
