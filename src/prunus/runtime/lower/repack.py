"""Packed channels: made from float32 and taken apart again, and their maximum over windows."""

from prunus.runtime.layout import LINE, Layout
from prunus.runtime.lower.context import Draft, clear_padding
from prunus.runtime.program import Op
from prunus.runtime.records import float_bits


def pack(draft: Draft, op: Op) -> None:
    """float32 channels into words of several."""
    x, out, form = draft.layout(op.inputs[0]), draft.layout(op.outputs[0]), draft.program.tensors[op.outputs[0]]
    clear_padding(draft, op.outputs[0])
    _, x_plane, x_pitch, x_step = _distances(x)
    _, out_plane, out_pitch, _ = _distances(out)
    h, w = (x.shape[2], x.shape[3]) if len(x.shape) == 4 else (1, 1)
    draft.emit(
        "pack", x=draft.at(op.inputs[0]), x_batch=x.strides[0], x_plane=x_plane, x_pitch=x_pitch, x_step=x_step,
        out=draft.at(op.outputs[0]), out_batch=out.strides[0], out_plane=out_plane, out_pitch=out_pitch,
        images=x.shape[0], channels=x.shape[1], h=h, w=w, pack=form.pack, scale=float_bits(1 / form.scale),
        zero=float_bits(form.zero),
    )  # fmt: skip


def unpack(draft: Draft, op: Op) -> None:
    """Words of several channels into float32."""
    x, out, form = draft.layout(op.inputs[0]), draft.layout(op.outputs[0]), draft.program.tensors[op.inputs[0]]
    clear_padding(draft, op.outputs[0])
    _, x_plane, x_pitch, _ = _distances(x)
    _, out_plane, out_pitch, out_step = _distances(out)
    h, w = (out.shape[2], out.shape[3]) if len(out.shape) == 4 else (1, 1)
    draft.emit(
        "unpack", x=draft.at(op.inputs[0]), x_batch=x.strides[0], x_plane=x_plane, x_pitch=x_pitch,
        out=draft.at(op.outputs[0]), out_batch=out.strides[0], out_plane=out_plane, out_pitch=out_pitch,
        out_step=out_step, images=out.shape[0], channels=out.shape[1], h=h, w=w, pack=form.pack,
        scale=float_bits(form.scale), zero=float_bits(form.zero),
    )  # fmt: skip


def _distances(layout: Layout) -> tuple[int, ...]:
    """Strides of images, channels, rows and pixels; a vector of channels is a map of one pixel."""
    return layout.strides if len(layout.strides) == 4 else (*layout.strides, 1, 1)


def max_pool(draft: Draft, op: Op) -> None:
    """Maximum over windows of words."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    top, left = op.attrs["pads"][:2]
    dilations = op.attrs.get("dilations", (1, 1))
    stride, kernel = op.attrs["strides"][1], op.attrs["kernel"][1]
    reach = max(left + x.shape[3], out.shape[3] * stride + (kernel - 1) * dilations[1]) + LINE
    draft.need_scratch(2 * reach)  # two lines
    draft.emit(
        "packed_pool", x=draft.at(op.inputs[0]), out=draft.at(op.outputs[0]), images=x.shape[0], planes=x.shape[1],
        x_batch=x.strides[0], x_plane=x.strides[1], x_pitch=x.strides[2], out_batch=out.strides[0],
        out_plane=out.strides[1], out_pitch=out.strides[2], h=x.shape[2], w=x.shape[3], oh=out.shape[2],
        ow=out.shape[3], kh=op.attrs["kernel"][0], kw=op.attrs["kernel"][1], sh=op.attrs["strides"][0],
        sw=op.attrs["strides"][1], dh=dilations[0], dw=dilations[1], top=top, left=left,
        pack=draft.program.tensors[op.inputs[0]].pack, reach=reach,
    )  # fmt: skip


def mean(draft: Draft, op: Op) -> None:
    """Mean of each plane of words, as float32."""
    x, form = draft.layout(op.inputs[0]), draft.program.tensors[op.inputs[0]]
    out = draft.layout(op.outputs[0])
    draft.emit(
        "packed_mean", x=draft.at(op.inputs[0]), out=draft.at(op.outputs[0]), images=x.shape[0],
        channels=form.shape[1], x_batch=x.strides[0], x_plane=x.strides[1], x_pitch=x.strides[2],
        out_batch=out.strides[0], h=x.shape[2], w=x.shape[3], pack=form.pack, scale=float_bits(form.scale),
        zero=float_bits(form.zero),
    )  # fmt: skip
