"""Dense convolution by tiles of 2x2 or 4x4 pixels: see kernels/c/winograd.h.

A strip of tiles has its input transformed, multiplied and transformed back while it is in cache. Where strips are too
few for all threads, the input is transformed first, and tasks are sections of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.layout import LINE
from prunus.runtime.lower.context import Address, Draft, activation_fields
from prunus.runtime.lower.groups import call_table, group_table
from prunus.runtime.lower.layer import Taps, clear_margins, input_planes, residual_fields, taps
from prunus.runtime.program import Op
from prunus.runtime.records import NOWHERE
from prunus.sparsity.winograd import Form, form_of, row_groups

CHANNELS_PER_TASK = 16  # whose input is transformed


@dataclass(frozen=True)
class Strips:
    """How an image's tiles are cut: `strips` of at most `vectors` vectors of tiles, and the distance of channels."""

    strips: int
    vectors: int
    pitch: int


def phases_of(attrs: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The phases of a convolution's input that it reads, in the order of their planes."""
    ys, xs = _taps(attrs)
    return sorted({(y, x) for y in ys.phases for x in xs.phases})


def over_phases(matrix: NDArray[np.float32], attrs: Mapping[str, Any]) -> NDArray[np.float32]:
    """Filters [m, channels * phases, r, r] over phase planes, from a layer matrix [m, channels * kh * kw]. attrs:
    kernel, strides, pads and dilations."""
    ys, xs = _taps(attrs)
    phases, (kh, kw), r = phases_of(attrs), attrs["kernel"], _form(attrs).taps
    filters = matrix.reshape(len(matrix), -1, kh, kw)
    found = np.zeros((*filters.shape[:2], len(phases), r, r), np.float32)
    for i, (py, sy) in enumerate(zip(ys.phases, ys.shifts, strict=True)):
        for j, (px, sx) in enumerate(zip(xs.phases, xs.shifts, strict=True)):
            found[:, :, phases.index((py, px)), sy - ys.low, sx - xs.low] = filters[:, :, i, j]
    return found.reshape(len(matrix), -1, r, r)


def _taps(attrs: Mapping[str, Any]) -> tuple[Taps, Taps]:
    sizes = zip(attrs["kernel"], attrs["strides"], attrs["pads"][:2], attrs["dilations"], strict=True)
    ys, xs = (taps(*size) for size in sizes)
    return ys, xs


def _form(attrs: Mapping[str, Any]) -> Form:
    form = form_of(attrs["kernel"], attrs["strides"], attrs["dilations"])
    assert form is not None, "a convolution without such a form"
    return form


def strips_of(h: int, w: int, side: int, most: int, lanes: int) -> Strips:
    """Strips of an output of h x w pixels in tiles of `side`, `most` vectors at most and alike give or take one.

    A pitch has room for lanes past the last tile, and is odd in cache lines or halves of them, or the channels of a
    tile would fall into few cache sets.
    """
    vectors = -(-(-(-h // side) * -(-w // side)) // lanes)
    strips = -(-vectors // most)
    widest, unit = -(-vectors // strips), max(LINE // 2, lanes)
    return Strips(strips, widest, (-(-((widest + 1) * lanes - 1) // unit) | 1) * unit)


def conv(draft: Draft, op: Op) -> None:
    """Convolution with its epilogue."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    n, o, h, w = out.shape
    source, choice, form = input_planes(draft, op), op.attrs["choice"], _form(op.attrs)
    rows, strip = choice["section"], choice["tiles_per_task"]
    planes = x.shape[1] * len(source.phases)
    assert sorted(source.phases) == phases_of(op.attrs), "planes of other phases than the filters'"
    cut = strips_of(h, w, form.side, strip, draft.program.lanes)
    position = planes * cut.pitch + LINE  # not a power of 2: a tile's stores must not share a cache set
    sums_position = min(rows, o) * cut.pitch + LINE
    tiles = {
        "side": form.side, "images": n, "x": source.base, "x_batch": source.batch, "x_plane": source.plane,
        "x_pitch": source.pitch, "channels": planes, "h": h, "w": w, "top": -source.ys.low, "left": -source.xs.low,
        "strip": strip, "pitch": cut.pitch, "position": position,
    }  # fmt: skip
    clear_margins(draft, op)
    ready: Address = NOWHERE
    scratch = form.positions * sums_position + LINE
    if choice["pixels_outer"]:
        scratch += form.positions * position
    else:
        ready = draft.temporary(n * cut.strips * form.positions * position)
        draft.emit("winograd_input", **tiles, out=ready, channels_per_task=CHANNELS_PER_TASK)
    draft.need_scratch(scratch)
    draft.emit(
        "winograd", **tiles, **_groups(draft, op, planes, cut.pitch), **residual_fields(draft, op),
        out=draft.at(op.outputs[0]), out_batch=out.batch, plane=out.plane, out_pitch=out.pitch, rows=o,
        section_rows=rows, tile=choice["tile"], sums_position=sums_position, ready=ready,
    )  # fmt: skip


def _groups(draft: Draft, op: Op, channels: int, pitch: int) -> dict[str, Any]:
    """The tables of one position's row groups, which are those of all; rows count from their section's first."""
    rows = op.attrs["choice"]["section"]
    encoding = row_groups(op.attrs["matrix"][0], channels, op.attrs["choice"]["heights"], rows)
    groups, starts = group_table(replace(encoding, rows=encoding.rows % rows))
    calls, parts, sections = call_table(encoding, starts)
    return {
        "weights": draft.constant(f"{op.attrs['encoding']}.values"),
        "offsets": draft.table(encoding.columns * pitch),
        "groups": draft.table(groups),
        "calls": draft.table(calls),
        "sections": draft.table(parts[sections]),
        "n_sections": len(sections) - 1,
        "bias": draft.constant(op.attrs.get("bias")),
        **activation_fields(draft, op),
    }
