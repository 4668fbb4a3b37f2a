"""Row groups as kernels read them: tables of groups, of their columns' windows, and of runs of groups."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.lower.context import Address, Draft, activation_fields
from prunus.runtime.program import Op
from prunus.runtime.records import APART_HEIGHT, float_bits
from prunus.sparsity.encoding import APART, SHARED, Encoding, column_starts, read_order, value_starts

_HEAD = 4  # integers of a group before its rows
_PIECE = 1 << 16  # offsets looked up at a time: numpy takes 8 bytes for each meanwhile


def row_groups(
    draft: Draft, op: Op, windows: NDArray[np.int64], *, narrow: bool = False, cuts: NDArray[np.int64] | None = None
) -> tuple[Encoding, dict[str, Any]]:
    """The tables of the row groups: what every layer's record points to. Bands of a chain share them. `cuts`: columns
    are in runs, see `column_runs`."""
    key = (op.name, windows.tobytes(), b"" if cuts is None else cuts.tobytes())
    if key not in draft.layers:
        draft.layers[key] = _new_groups(draft, op, windows, narrow, cuts)
    return draft.layers[key]


def _new_groups(
    draft: Draft, op: Op, windows: NDArray[np.int64], narrow: bool, cuts: NDArray[np.int64] | None
) -> tuple[Encoding, dict[str, Any]]:
    encoding = draft.program.groups(op)
    calls, parts, sections = call_table(encoding, group_places(encoding)[1])
    tables = _column_tables(draft, op, windows, narrow) if cuts is None else _run_tables(draft, op, windows, cuts)
    fields = {
        "weights": draft.constant(f"{op.attrs['encoding']}.values"),
        **tables,
        "calls": draft.table(calls),
        "parts": draft.table(parts),
        "sections": draft.table(sections),
        "n_sections": len(sections) - 1,
        "bias": draft.constant(op.attrs.get("bias")),
        **activation_fields(draft, op),
        **packed_fields(draft, op),
    }
    return encoding, fields


def _column_tables(draft: Draft, op: Op, windows: NDArray[np.int64], narrow: bool) -> dict[str, Address]:
    """Groups, and the windows of their columns, which are looked up once the plan's memory is there."""
    program, n_columns, places = draft.program, draft.program.n_columns(op), windows.astype(np.int32)
    encoding = program.groups(op)

    def offsets(out: NDArray[np.int32]) -> None:
        program.write_columns(op, out)
        read_order(encoding, out)
        for start in range(0, len(out), _PIECE):
            out[start : start + _PIECE] = places[out[start : start + _PIECE]]

    def narrow_offsets(out: NDArray[np.int32]) -> None:
        wide = np.empty(n_columns, np.int32)
        offsets(wide)
        out.view(np.uint16)[:n_columns] = wide

    return {
        "offsets": draft.late_table(-(-n_columns // 2), narrow_offsets)
        if narrow
        else draft.late_table(n_columns, offsets),
        "groups": draft.late_table(
            group_places(encoding)[0], lambda out: np.copyto(out, group_table(program.groups(op))[0])
        ),
    }


def _run_tables(draft: Draft, op: Op, windows: NDArray[np.int64], cuts: NDArray[np.int64]) -> dict[str, Address]:
    """Groups with their columns in runs: of small layers."""
    columns = np.empty(draft.program.n_columns(op), np.int32)
    draft.program.write_columns(op, columns)
    encoding = replace(draft.program.groups(op), columns=columns)
    runs = column_runs(encoding, windows, cuts)
    return {"offsets": draft.table(runs.offsets), "groups": draft.table(group_table(encoding, runs)[0])}


def group_places(encoding: Encoding) -> tuple[int, NDArray[np.int64]]:
    """The size of the group table, and where each group starts in it."""
    ends = np.cumsum(encoding.heights + _HEAD)
    return int(ends[-1]) if len(ends) else 0, ends - (encoding.heights + _HEAD)


@dataclass(frozen=True)
class Runs:
    """Columns in runs as kernels/c/lanes.h reads them; of each group, how many runs and where the first one starts."""

    offsets: NDArray[np.int32]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]


def column_runs(encoding: Encoding, windows: NDArray[np.int64], cuts: NDArray[np.int64]) -> Runs:
    """Neighbouring columns of a group of the same cut as a run each: cut, number of columns, their windows. cuts:
    int64[columns of the matrix]. No group is APART."""
    own, sizes = column_starts(encoding).tolist(), encoding.counts.tolist()
    known, found, at = dict[int, tuple[int, int]](), [np.empty(0, np.int64)], 0  # by start: runs, and where they are
    for first, size in zip(own, sizes, strict=True):
        if size and first not in known:
            columns = encoding.columns[first : first + size]
            runs = np.split(columns, np.flatnonzero(np.diff(cuts[columns])) + 1)
            known[first] = len(runs), at
            for run in runs:
                found.append(np.concatenate([[cuts[run[0]], len(run)], windows[run]]))
                at += len(found[-1])
    places = [known[first] if size else (0, 0) for first, size in zip(own, sizes, strict=True)]
    many, begin = np.array(places, np.int64).reshape(-1, 2).T
    return Runs(np.concatenate(found).astype(np.int32), many, begin)


def group_table(encoding: Encoding, runs: Runs | None = None) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The groups as kernels read them (columns or runs of them, flags, first offset, first weight, rows), and where
    each starts."""
    size, starts = group_places(encoding)
    heights, table = encoding.heights, np.zeros(size, np.int32)
    counts, first = (encoding.counts, column_starts(encoding)) if runs is None else (runs.counts, runs.starts)
    for i, column in enumerate((counts, encoding.flags & ~(SHARED | APART), first, value_starts(encoding))):
        table[starts + i] = column
    row_starts = np.cumsum(heights) - heights
    within = np.arange(len(encoding.rows)) - np.repeat(row_starts, heights)
    table[np.repeat(starts + _HEAD, heights) + within] = encoding.rows
    return table, starts


def call_table(
    encoding: Encoding, starts: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Runs of groups of one height (height or APART_HEIGHT + height, start, groups), the first run of each part, the
    first part of each section."""
    n = len(encoding.heights)
    heights = np.where(encoding.flags & APART, encoding.heights + APART_HEIGHT, encoding.heights)
    if n == 0:
        return np.zeros((0, 3), np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    breaks = np.zeros(n, bool)
    breaks[encoding.parts[:-1]] = True
    breaks[1:] |= heights[1:] != heights[:-1]
    first = np.flatnonzero(breaks)
    lengths = np.diff(np.append(first, n))
    calls = np.stack([heights[first], starts[first], lengths], 1)
    parts = np.searchsorted(first, encoding.parts).astype(np.int32)
    return calls.astype(np.int32), parts, np.searchsorted(encoding.parts, encoding.sections).astype(np.int32)


def packed_fields(draft: Draft, op: Op) -> dict[str, Any]:
    """How the words of the output are made from sums, where channels are packed: see `compiler.words.epilogue`."""
    if "epilogue" not in op.attrs:
        return {}
    made = op.attrs["epilogue"]
    numbers = {key: float_bits(made[key]) for key in ("residual_scale", "post_scale", "post_shift")}
    numbers |= {key: made[key] * 0x01010101 for key in ("low", "high")}
    tensors = draft.program.tensors
    return {
        "pack": tensors[op.inputs[0]].pack, "out_real": int(tensors[op.outputs[0]].pack == 1),
        "scale": draft.constant(made["scale"]), "pad": tensors[op.outputs[0]].pad, **numbers,
    }  # fmt: skip
