"""Dense 3x3 convolution of stride 1 by tiles of 2x2 pixels: see kernels/c/winograd.h.

A strip of tiles has its input transformed, multiplied and transformed back while it is in cache. Where strips are too
few for all threads, the input is transformed first, and tasks are sections of rows.
"""

from dataclasses import dataclass, replace
from typing import Any

from prunus.runtime.layout import LINE
from prunus.runtime.lower.context import Address, Draft, activation_fields
from prunus.runtime.lower.layer import call_table, clear_margins, group_table, input_planes, residual_fields
from prunus.runtime.program import Op
from prunus.runtime.records import NOWHERE
from prunus.sparsity.winograd import POSITIONS, row_groups

CHANNELS_PER_TASK = 16  # whose input is transformed


@dataclass(frozen=True)
class Strips:
    """How an image's tiles are cut: `strips` of at most `vectors` vectors of tiles, and the distance of channels."""

    strips: int
    vectors: int
    pitch: int


def strips_of(h: int, w: int, most: int, lanes: int) -> Strips:
    """Strips of an output of h x w pixels, `most` vectors at most and alike give or take one.

    A pitch has room for lanes past the last tile, and is odd in cache lines or halves of them, or the channels of a
    tile would fall into few cache sets.
    """
    vectors = -(-(-(-h // 2) * -(-w // 2)) // lanes)
    strips = -(-vectors // most)
    widest, unit = -(-vectors // strips), max(LINE // 2, lanes)
    return Strips(strips, widest, (-(-((widest + 1) * lanes - 1) // unit) | 1) * unit)


def conv(draft: Draft, op: Op) -> None:
    """Convolution with its epilogue."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    n, o, h, w = out.shape
    source, choice = input_planes(draft, op), op.attrs["choice"]
    rows, strip = choice["section"], choice["tiles_per_task"]
    assert len(source.phases) == 1, "tiles overlap at stride 1 only"
    cut = strips_of(h, w, strip, draft.program.lanes)
    position = x.shape[1] * cut.pitch + LINE  # not a power of 2: a tile's 16 stores must not share a cache set
    sums_position = min(rows, o) * cut.pitch + LINE
    tiles = {
        "images": n, "x": source.base, "x_batch": source.batch, "x_plane": source.plane, "x_pitch": source.pitch,
        "channels": x.shape[1], "h": h, "w": w, "top": op.attrs["pads"][0], "left": op.attrs["pads"][1],
        "strip": strip, "pitch": cut.pitch, "position": position,
    }  # fmt: skip
    clear_margins(draft, op)
    ready: Address = NOWHERE
    scratch = POSITIONS * sums_position + LINE
    if choice["pixels_outer"]:
        scratch += POSITIONS * position
    else:
        ready = draft.temporary(n * cut.strips * POSITIONS * position)
        draft.emit("winograd_input", **tiles, out=ready, channels_per_task=CHANNELS_PER_TASK)
    draft.need_scratch(scratch)
    draft.emit(
        "winograd", **tiles, **_groups(draft, op, cut.pitch), **residual_fields(draft, op),
        out=draft.at(op.outputs[0]), out_batch=out.batch, plane=out.plane, out_pitch=out.pitch, rows=o,
        section_rows=rows, tile=choice["tile"], sums_position=sums_position, ready=ready,
    )  # fmt: skip


def _groups(draft: Draft, op: Op, pitch: int) -> dict[str, Any]:
    """The tables of one position's row groups, which are those of all; rows count from their section's first."""
    m, channels = op.attrs["matrix"][0], op.attrs["matrix"][1] // 9
    rows = op.attrs["choice"]["section"]
    encoding = row_groups(m, channels, op.attrs["choice"]["heights"], rows)
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
