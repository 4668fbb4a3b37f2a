"""Pooling and resizing: windows and look-ups over planes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.layout import LINE
from prunus.runtime.lower import repack
from prunus.runtime.lower.context import Draft, clear_padding
from prunus.runtime.program import Op


def max_pool(draft: Draft, op: Op) -> None:
    """Maximum over windows; padding never wins."""
    if draft.program.tensors[op.inputs[0]].pack > 1:
        repack.max_pool(draft, op)
        return
    _pool(draft, op, average=0, include_pad=0)


def avg_pool(draft: Draft, op: Op) -> None:
    """Mean over windows, padding counted or not."""
    _pool(draft, op, average=1, include_pad=int(op.attrs["count_include_pad"]))


def _pool(draft: Draft, op: Op, average: int, include_pad: int) -> None:
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    top, left, bottom, right = op.attrs["pads"]
    dilations = op.attrs.get("dilations", (1, 1))
    reach = (out.shape[3] - 1) * op.attrs["strides"][1] + op.attrs["kernel"][1] * dilations[1]
    draft.need_scratch(2 * max(left + x.shape[3], reach) + 4 * LINE)  # two lines, and vectors that reach past them
    assert x.strides[3] == out.strides[3] == 1 or x.shape[3] == 1 or out.shape[3] == 1, f"{op.name}: rows lie together"
    draft.emit(
        "pool", average=average, include_pad=include_pad, x=draft.at(op.inputs[0]), out=draft.at(op.outputs[0]),
        images=x.shape[0], planes=x.shape[1], x_batch=x.batch, x_plane=x.plane, x_pitch=x.pitch, out_batch=out.batch,
        out_plane=out.plane, out_pitch=out.pitch, h=x.shape[2], w=x.shape[3], oh=out.shape[2], ow=out.shape[3],
        kh=op.attrs["kernel"][0], kw=op.attrs["kernel"][1], sh=op.attrs["strides"][0], sw=op.attrs["strides"][1],
        dh=dilations[0], dw=dilations[1], top=top, left=left, bottom=bottom, right=right,
    )  # fmt: skip


def global_avg_pool(draft: Draft, op: Op) -> None:
    """Mean of each plane."""
    if draft.program.tensors[op.inputs[0]].pack > 1:
        repack.mean(draft, op)
        return
    _global(draft, op, 1)


def global_max_pool(draft: Draft, op: Op) -> None:
    """Maximum of each plane."""
    _global(draft, op, 0)


def _global(draft: Draft, op: Op, average: int) -> None:
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    draft.emit(
        "global_pool", average=average, x=draft.at(op.inputs[0]), out=draft.at(op.outputs[0]), images=x.shape[0],
        planes=x.shape[1], x_batch=x.batch, x_plane=x.plane, x_pitch=x.pitch, out_batch=out.batch,
        out_plane=out.plane, h=x.shape[2], w=x.shape[3],
    )  # fmt: skip


Table = tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]


def lookup(draft: Draft, op: Op, rows: Table, columns: Table, *, blend: bool) -> None:
    """Emit out[y, x] from rows y0, y1 and columns x0, x1 of the input, blended by their weights."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    draft.emit(
        "resample", out=draft.at(op.outputs[0]), x=draft.at(op.inputs[0]), images=x.shape[0], planes=x.shape[1],
        out_batch=out.batch, out_plane=out.plane, out_pitch=out.pitch, x_batch=x.batch, x_plane=x.plane,
        oh=out.shape[2], ow=out.shape[3], y0=draft.table(rows[0] * x.pitch), y1=draft.table(rows[1] * x.pitch),
        wy=draft.table(rows[2].astype(np.float32)), x0=draft.table(columns[0]), x1=draft.table(columns[1]),
        wx=draft.table(columns[2].astype(np.float32)), blend=int(blend),
    )  # fmt: skip


def resize(draft: Draft, op: Op) -> None:
    """Nearest or linear resizing of rows and columns."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    tables = [
        source_table(
            x.shape[axis], out.shape[axis], float(op.attrs["scales"][axis - 2]), op.attrs["mode"],
            op.attrs["coordinates"], op.attrs["nearest_mode"],
        )
        for axis in (2, 3)
    ]  # fmt: skip
    lookup(draft, op, tables[0], tables[1], blend=op.attrs["mode"] == "linear")


def source_table(size: int, out: int, scale: float, mode: str, coordinates: str, nearest: str) -> Table:
    """For each output position: two input positions and the weight of the second. As ONNX's Resize defines them."""
    i = np.arange(out, dtype=np.float64)
    if coordinates == "align_corners":
        at = i * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
    elif coordinates == "asymmetric":
        at = i / scale
    elif coordinates == "pytorch_half_pixel" and out == 1:
        at = np.zeros(out)
    elif coordinates == "half_pixel_symmetric":
        at = size / 2 * (1 - out / (scale * size)) + (i + 0.5) / scale - 0.5
    else:
        at = (i + 0.5) / scale - 0.5
    if mode == "nearest":
        rounded = {
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
        }[nearest]
        place = np.clip(rounded, 0, size - 1).astype(np.int64)
        return place, place, np.zeros(out, np.float32)
    at = np.clip(at, 0, size - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)
