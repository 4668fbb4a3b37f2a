"""Depthwise convolution of float32 planes: see kernels/c/depthwise.h.

The input is read where it lies, at any stride, if its margins are wide enough; `arrange` sees to that. What comes from
elsewhere is copied between margins first.
"""

import numpy as np

from prunus.runtime.layout import LINE, Layout, planar, up
from prunus.runtime.lower.context import Address, Draft, activation_fields
from prunus.runtime.lower.layer import clear_margins, residual_fields
from prunus.runtime.program import Op


def conv(draft: Draft, op: Op) -> None:
    """Convolution with its epilogue."""
    out, filters = draft.layout(op.outputs[0]), op.attrs["matrix"][0]
    n, o, h, w = out.shape
    base, x = _padded(draft, op)
    top, left = op.attrs["pads"][:2]
    residual = residual_fields(draft, op)
    if len(op.inputs) > 1:
        residual["residual_pitch"] = draft.layout(op.inputs[1]).pitch
    clear_margins(draft, op)
    draft.emit(
        "depthwise", images=n, planes=o, x=base + -(top * x.pitch + left), x_batch=x.batch, x_plane=x.plane,
        x_pitch=x.pitch, out=draft.at(op.outputs[0]), out_batch=out.batch, plane=out.plane, pitch=out.pitch, h=h, w=w,
        room=out.plane - up(out.front, LINE), weights=draft.constant(f"{op.attrs['encoding']}.values"),
        bias=draft.constant(op.attrs.get("bias")), kernel=op.attrs["kernel"][0], stride=op.attrs["strides"][0],
        per_input=filters // x.shape[1], planes_per_task=op.attrs["choice"]["tiles_per_task"], **residual,
        **activation_fields(draft, op),
    )  # fmt: skip


def _padded(draft: Draft, op: Op) -> tuple[Address, Layout]:
    """Address of pixel (0, 0) of the input, or of a copy, with zeros around as the padding asks; how it lies.

    The caller's own arrays are copied even where no padding is asked for: vectors may reach past the last pixel.
    """
    x = draft.layout(op.inputs[0])
    top, left, bottom, right = (max(pad, 0) for pad in op.attrs["pads"])
    n, c, h, w = x.shape
    if (
        op.inputs[0] not in draft.program.inputs
        and x.strides[3] == 1
        and x.pitch >= w + max(left, right)
        and x.front >= top * x.pitch + left
        and x.tail >= bottom * x.pitch + right
    ):
        return draft.at(op.inputs[0]), x
    copy = planar(x.shape, w + max(left, right), top, left, bottom, right)
    target = draft.temporary(copy.size)
    draft.emit(
        "phases", x=draft.at(op.inputs[0]), x_batch=x.batch, x_plane=x.plane, x_pitch=x.pitch, x_step=x.strides[3],
        out=target, out_batch=copy.batch, plane=copy.plane, pitch=copy.pitch, lead=copy.first, images=n, planes=c, sh=1,
        sw=1, n_phases=1, table=draft.table(np.array([0, 0, 0, h - 1, 0, w - 1])),
    )  # fmt: skip
    return target + copy.first, copy
