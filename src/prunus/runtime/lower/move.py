"""Operators that only move elements: copies of boxes between strided tensors."""

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.layout import c_strides
from prunus.runtime.lower.context import Draft, as_contiguous, clear_channels, clear_padding, copy
from prunus.runtime.lower.window import lookup
from prunus.runtime.program import Op


def reshape(draft: Draft, op: Op) -> None:
    """The same elements in C order under another shape; nothing to do where the output is a view of the input."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    if draft.place(op.inputs[0]) == draft.place(op.outputs[0]):
        return
    if out.contiguous:
        copy(draft, draft.at(op.outputs[0]), c_strides(x.shape), draft.at(op.inputs[0]), x.strides, x.shape)
        return
    clear_padding(draft, op.outputs[0])
    base = as_contiguous(draft, op.inputs[0])
    copy(draft, draft.at(op.outputs[0]), out.strides, base, c_strides(out.shape), out.shape)


def transpose(draft: Draft, op: Op) -> None:
    """Axes in another order."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    strides = tuple(x.strides[axis] for axis in op.attrs["perm"])
    copy(draft, draft.at(op.outputs[0]), out.strides, draft.at(op.inputs[0]), strides, out.shape)


def slice_(draft: Draft, op: Op) -> None:
    """A box of the input, with steps; nothing to do where the output is a view of the input."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    start = sum(s * stride for s, stride in zip(op.attrs["starts"], x.strides, strict=True))
    if draft.place(op.inputs[0], start) == draft.place(op.outputs[0]):
        return
    clear_padding(draft, op.outputs[0])
    strides = tuple(step * stride for step, stride in zip(op.attrs["steps"], x.strides, strict=True))
    copy(draft, draft.at(op.outputs[0]), out.strides, draft.at(op.inputs[0]) + start, strides, out.shape)


def split(draft: Draft, op: Op) -> None:
    """Pieces along an axis; those that lie in the input as views stay where they are."""
    x = draft.layout(op.inputs[0])
    axis, start = op.attrs["axis"] % len(x.shape), 0
    for name, size in zip(op.outputs, op.attrs["sizes"], strict=True):
        out, shift = draft.layout(name), start * x.strides[axis]
        if draft.place(op.inputs[0], shift) != draft.place(name):
            clear_padding(draft, name)
            copy(draft, draft.at(name), out.strides, draft.at(op.inputs[0]) + shift, x.strides, out.shape)
        start += size


def concat(draft: Draft, op: Op) -> None:
    """Pieces side by side along an axis; those that already lie in the output stay where they are."""
    out = draft.layout(op.outputs[0])
    axis, start, moved = op.attrs["axis"] % len(out.shape), 0, []
    for name in op.inputs:
        shift = start * out.strides[axis]
        if draft.place(name) != draft.place(op.outputs[0], shift):
            moved.append((name, start, shift))
        start += draft.layout(name).shape[axis]
    if len(moved) == len(op.inputs):
        clear_padding(draft, op.outputs[0])
    for name, start, shift in moved:
        x = draft.layout(name)
        if len(moved) < len(op.inputs) and axis == 1 and len(x.shape) == 4:
            clear_channels(draft, op.outputs[0], start, x.shape[1])
        copy(draft, draft.at(op.outputs[0]) + shift, out.strides, draft.at(name), x.strides, x.shape)


def interleave(draft: Draft, op: Op) -> None:
    """[n, o * sh * sw, h, w] -> [n, o, ~h * sh, ~w * sw]: channel (o, a, b) fills pixels (y * sh + a, x * sw + b)."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    sh, sw = op.attrs["strides"]
    clear_padding(draft, op.outputs[0])
    n, o, oh, ow = out.shape
    for a in range(sh):
        for b in range(sw):
            box = (n, o, -(-(oh - a) // sh), -(-(ow - b) // sw))
            target = draft.at(op.outputs[0]) + (a * out.pitch + b * out.strides[3])
            source = draft.at(op.inputs[0]) + (a * sw + b) * x.plane
            copy(
                draft, target, (out.batch, out.plane, out.pitch * sh, out.strides[3] * sw), source,
                (x.batch, x.plane * sh * sw, x.pitch, x.strides[3]), box,
            )  # fmt: skip


def _reflected(place: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions mirrored at the first and last element, as often as need be."""
    period = max(2 * (size - 1), 1)
    folded = np.abs(place) % period
    return np.where(folded < size, folded, period - folded)


def pad(draft: Draft, op: Op) -> None:
    """Padding by a constant on any axis, or by mirrored or repeated edges on the last two."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    before = [b for b, _ in op.attrs["pads"]]
    clear_padding(draft, op.outputs[0])
    if op.attrs["mode"] != "constant":
        tables = []
        for axis in (-2, -1):
            low, high = op.attrs["pads"][axis]
            place = np.arange(-low, x.shape[axis] + high)
            tables.append(_reflected(place, x.shape[axis]) if op.attrs["mode"] == "reflect" else
                          np.clip(place, 0, x.shape[axis] - 1))  # fmt: skip
        zeros = [np.zeros(len(t), np.float32) for t in tables]
        lookup(draft, op, (tables[0], tables[0], zeros[0]), (tables[1], tables[1], zeros[1]), blend=False)
        return
    if any(b or a for b, a in op.attrs["pads"]):
        value = draft.table(np.array([op.attrs["value"]], np.float32))
        copy(draft, draft.at(op.outputs[0]), out.strides, value, (0,) * len(out.shape), out.shape)
    start = sum(b * stride for b, stride in zip(before, out.strides, strict=True))
    copy(draft, draft.at(op.outputs[0]) + start, out.strides, draft.at(op.inputs[0]), x.strides, x.shape)
