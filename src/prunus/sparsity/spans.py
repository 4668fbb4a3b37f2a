"""An encoding for products with one vector, of zeros that few rows share: rows pruned inside blocks, or any.

Columns are cut into spans of 128, so that a column takes one byte and a processor with wide registers looks 16 of them
up in registers. Inside a span rows with the same columns form pieces of up to 8, and 16 pieces of as many rows and
about as many columns go side by side, each with columns of its own: a lane looks up its piece's column once for all its
rows.
For BCR (GRIM, arXiv:2108.11033) a piece is a block; for zeros anywhere, a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

SPAN: Final = 128  # columns
LANES: Final = 16  # pieces side by side
QUAD: Final = 4  # columns of a piece that are read together
MOST_ROWS: Final = 8  # of a piece
MOST_COLUMNS: Final = 1 << 16  # a span's first column is two bytes
MOST_SECTION: Final = (1 << 16) - LANES  # rows of a section: so is a row in it
ARRAYS: Final = ("entries", "values", "places", "sections")
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Spans:
    """What the kernel reads from front to back. values: zeros behind; places: int32[sections + 1, 2], where each
    section begins in entries and values; sections: int32[sections + 1], their first rows.

    entries, of each span of a section that keeps anything: first column and number of groups; per group its height
    (rows of a piece), its columns, the rows [height][16] in the section, all of 2 bytes, and the columns
    [quad of columns][16][4] of one, zeros behind the last. values of a group are [column][height][16]. A lane
    without a piece has the number of the section's rows for a row; one with fewer columns has zeros.
    """

    entries: Bytes
    values: Floats
    places: NDArray[np.int32]
    sections: NDArray[np.int32]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By the names of ARRAYS."""
        return {name: getattr(self, name) for name in ARRAYS}


def encode_spans(matrix: Floats, section_values: int) -> Spans:
    """A section closes at `section_values` values, at a multiple of as many rows as fill the lanes with pieces."""
    m, k = matrix.shape
    padded = np.zeros((-(-m // LANES) * LANES, -(-k // SPAN) * SPAN), np.float32)
    padded[:m, :k] = matrix
    counts = np.count_nonzero(padded.reshape(-1, LANES * padded.shape[1]), axis=1)
    starts = _cut(counts, section_values, _filling(padded != 0))
    entries, values, places = _Stream(np.uint8), _Stream(np.float32), [(0, 0)]
    for first, last in pairwise(starts):
        for base in range(0, k, SPAN):
            _add_span(padded[first:last, base : base + SPAN], base, entries, values)
        places.append((entries.size, values.size))
    return Spans(  # whole vectors are read, up to a line behind the last
        np.asarray(entries.array(LANES * QUAD), np.uint8), np.asarray(values.array(LANES), np.float32),
        np.array(places, np.int32), np.array(starts, np.int32),
    )  # fmt: skip


def _add_span(part: Floats, base: int, entries: "_Stream", values: "_Stream") -> None:
    """The entry of a span of a section, [rows, 128]."""
    mask = part != 0
    rows, counts = _by_columns(mask)
    if not len(rows):
        return
    begins, heights = _pieces(mask, rows)
    order = np.lexsort((-counts[begins], -heights))
    begins, heights = begins[order], heights[order]
    ends = np.flatnonzero(np.diff(heights, append=0))  # last piece of each height
    groups, start = [], 0
    for end in ends.tolist():
        groups += [slice(i, min(i + LANES, end + 1)) for i in range(start, end + 1, LANES)]
        start = end + 1
    entries.add(_words(base, len(groups)))
    columns = np.argsort(~mask, axis=1, kind="stable")  # kept ones first
    for group in groups:
        height, n = int(heights[group.start]), int(counts[begins[group]].max())
        own = rows[begins[group][None] + np.arange(height)[:, None]]  # [height, pieces]
        lanes = np.full((height, LANES), len(part), np.int64)
        lanes[:, : own.shape[1]] = own
        places = np.zeros((n, LANES), np.int64)
        places[:, : own.shape[1]] = columns[own[0], :n].T
        held = np.zeros((n, height, LANES), np.float32)
        held[:, :, : own.shape[1]] = part[own[None], places[:, None, : own.shape[1]]]
        held *= np.arange(n)[:, None, None] < _filled(counts[begins[group]])  # behind a piece's last are its zeros
        quads = np.zeros((-(-n // QUAD), QUAD, LANES), np.int64)
        quads.reshape(-1, LANES)[:n] = places
        rows_of = lanes.astype("<u2").view(np.uint8).ravel()
        entries.add(_words(height, n), rows_of, quads.swapaxes(1, 2).ravel())
        values.add(held.ravel())


def _filled(counts: Ints) -> Ints:
    return np.pad(counts, (0, LANES - len(counts)))


def _by_columns(mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Rows that keep any column, those with the same ones beside each other; how many each keeps."""
    keys = np.ascontiguousarray(np.packbits(mask, axis=1)).view(f"V{SPAN // 8}").ravel()
    rows = np.flatnonzero(mask.any(1))
    rows = rows[np.argsort(np.unique(keys[rows], return_inverse=True)[1].ravel(), kind="stable")]
    return rows, mask[rows].sum(1)


def _pieces(mask: NDArray[np.bool_], rows: Ints) -> tuple[Ints, Ints]:
    """Where pieces begin in `rows`, and their heights."""
    n = len(rows)
    new = np.ones(n, bool)
    new[1:] = (mask[rows[1:]] != mask[rows[:-1]]).any(1)
    since = np.arange(n) - np.maximum.accumulate(np.where(new, np.arange(n), 0))
    begins = np.flatnonzero(since % MOST_ROWS == 0)
    return begins, np.diff(begins, append=n)


class _Stream:
    """Arrays one behind the other."""

    def __init__(self, dtype: type) -> None:
        self.dtype, self.size = dtype, 0
        self.parts: list[NDArray[Any]] = []

    def add(self, *parts: NDArray[Any]) -> None:
        for part in parts:
            self.parts.append(part.astype(self.dtype))
            self.size += len(part)

    def array(self, behind: int) -> NDArray[Any]:
        return np.concatenate([*self.parts, np.zeros(behind, self.dtype)])


def _words(*values: int) -> Bytes:
    return np.array(values, "<u2").view(np.uint8)


def _filling(mask: NDArray[np.bool_]) -> int:
    """How many times 16 rows have 16 pieces in a span, as the first ones tell: 16 times for blocks of 16 rows."""
    first = mask[: LANES * LANES, :SPAN]
    rows, _ = _by_columns(first)
    n_pieces = len(_pieces(first, rows)[0])
    return -(-len(first) // max(n_pieces, LANES))


def _cut(counts: Sequence[int] | Ints, most: int, unit: int) -> list[int]:
    """First rows of sections, and the end: each but the last has at least `most` of the counts, one per 16 rows, and a
    multiple of `unit` of them."""
    starts, held = [0], 0
    for i, count in enumerate(counts, 1):
        held += int(count)
        full = held >= most and i % unit == 0
        if full or i == len(counts) or (i + 1) * LANES - starts[-1] > MOST_SECTION:
            starts.append(i * LANES)
            held = 0
    return starts
