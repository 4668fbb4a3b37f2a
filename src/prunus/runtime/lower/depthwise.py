"""Convolution with one filter per channel, straight from the planes of its input."""

from typing import Any

from prunus.runtime.layout import Layout, planar
from prunus.runtime.lower.context import Address, Draft, activation_fields, copy
from prunus.runtime.lower.layer import clear_margins
from prunus.runtime.program import Op
from prunus.runtime.records import NOWHERE


def conv(draft: Draft, op: Op) -> None:
    """The record, and a copy of the input with margins before it where the input has none."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    base: Address = draft.at(op.inputs[0])
    if not has_margins(x, op):
        base, x = _with_margins(draft, op, x)
    top, left = op.attrs["pads"][:2]
    clear_margins(draft, op)
    draft.emit(
        "depthwise", images=out.shape[0], planes=out.shape[1], x=base, x_batch=x.batch, x_plane=x.plane,
        x_pitch=x.pitch, before=top * x.pitch + left, out=draft.at(op.outputs[0]), out_batch=out.batch,
        plane=out.plane, pitch=out.pitch, oh=out.shape[2], ow=out.shape[3],
        weights=draft.constant(f"{op.attrs['encoding']}.values"),
        kernel=op.attrs["kernel"][0], stride=op.attrs["strides"][0], bias=draft.constant(op.attrs.get("bias")),
        **activation_fields(draft, op), **_residual_fields(draft, op),
    )  # fmt: skip


def margins(op: Op) -> tuple[int, int, int, int]:
    """Rows and columns of zeros that the record reads around its input: top, left, bottom, right; none is negative."""
    top, left, bottom, right = op.attrs["pads"]
    return max(top, 0), max(left, 0), max(bottom, 0), max(right, 0)


def has_margins(x: Layout, op: Op) -> bool:
    """The input can be read where it lies."""
    top, left, bottom, right = margins(op)
    return bool(
        len(x.shape) == 4
        and x.strides[3] == 1
        and x.pitch >= x.shape[3] + max(left, right)
        and x.front >= top * x.pitch + left
        and x.tail >= bottom * x.pitch + right
    )


def _with_margins(draft: Draft, op: Op, x: Layout) -> tuple[Address, Layout]:
    top, left, bottom, right = margins(op)
    wide = planar(x.shape, x.shape[3] + max(left, right), top, left, bottom, right)
    target = draft.temporary(wide.size)
    draft.emit("fill", out=target, count=wide.size, value=0)
    copy(draft, target + wide.first, wide.strides, draft.at(op.inputs[0]), x.strides, x.shape)
    return target + wide.first, wide


def _residual_fields(draft: Draft, op: Op) -> dict[str, Any]:
    if len(op.inputs) < 2:
        return {"residual": NOWHERE}
    other = draft.layout(op.inputs[1])
    return {
        "residual": draft.at(op.inputs[1]), "residual_batch": other.batch, "residual_plane": other.plane,
        "residual_pitch": other.pitch,
    }  # fmt: skip
