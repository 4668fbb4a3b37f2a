"""Row groups: any matrix with zeros as a list of small dense pieces, in the order in which they are computed.

A group is some rows that share a list of kept columns, with their values packed [column][row]. A row may be served by
several groups that add up; flags say whether a group starts from the partial sums (LOAD) and whether it ends the row
(FINAL), or, where its rows differ in that, which do (MIXED). Rows that share nothing may still form a group, to be
computed side by side (APART). A section is a run of groups that owns its rows, so sections can go to different threads.
This is GRIM's BCRC with groups of fixed height. Source: Niu et al., "GRIM", TPAMI 44 (2022), arXiv:2108.11033, sections
on matrix reorder and compact storage; flags, sections and heights are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOAD, FINAL, SHARED = 1, 2, 4  # SHARED: the columns are those of the group before
APART = 1 << 24  # each row has as many columns, of its own
FILLED = 3  # fewer rows are computed one by one
MIXED, LOADS, ENDS, MOST_MIXED = 8, 8, 16, 8  # MIXED: bit LOADS + r for LOAD of row r, ENDS + r for FINAL; up to 8 rows
Ints = NDArray[np.int64]
Indices = NDArray[np.int64] | NDArray[np.int32]
Floats = NDArray[np.float32]
Values = NDArray[Any]  # float32, or int32 words of packed channels


@dataclass(frozen=True)
class Encoding:
    """A matrix as row groups.

    heights, counts, flags: int64[groups], rows and columns of each group and its flags. rows: int64[sum of heights].
    columns: int64 or int32[sum of counts of groups that aren't SHARED], where APART a list per row. values:
    float32[sum of heights * counts], per group [column][row]; int32 where the matrix is one of words (see `words.py`).
    parts: int64[parts + 1], first group of each stretch of groups over one range of columns. sections:
    int64[sections + 1], first group of each, a subset of `parts`.
    """

    shape: tuple[int, int]
    heights: Ints
    counts: Ints
    flags: Ints
    rows: Ints
    columns: Indices
    values: Values
    parts: Ints
    sections: Ints

    @property
    def kept(self) -> int:
        """Number of values held, padding zeros included."""
        return int(self.values.size)


def column_starts(encoding: Encoding) -> Ints:
    """int64[groups]: where each group's columns start in `columns`; SHARED ones start where the one before does."""
    own = np.where(encoding.flags & SHARED, 0, encoding.counts)
    own = np.where(encoding.flags & APART, own * encoding.heights, own)
    starts = np.asarray(np.cumsum(own) - own, np.int64)
    owner = np.maximum.accumulate(np.where(encoding.flags & SHARED, 0, np.arange(len(own))))
    return np.asarray(starts[owner], np.int64) if len(own) else starts


def value_starts(encoding: Encoding) -> Ints:
    """int64[groups]: where each group's values start in `values`."""
    sizes = encoding.heights * encoding.counts
    return np.asarray(np.cumsum(sizes) - sizes, np.int64)


def decode(encoding: Encoding) -> Values:
    """The matrix [m, k]."""
    matrix = np.zeros(encoding.shape, encoding.values.dtype)
    starts, row_starts = column_starts(encoding), np.cumsum(encoding.heights) - encoding.heights
    first = value_starts(encoding)
    for height in np.unique(encoding.heights):
        for group in np.flatnonzero((encoding.heights == height) & (encoding.counts > 0)):
            n = encoding.counts[group]
            rows = encoding.rows[row_starts[group] : row_starts[group] + height]
            piece = encoding.values[first[group] : first[group] + n * height].reshape(n, height)
            if encoding.flags[group] & APART:  # a column comes again where a row is filled up
                columns = encoding.columns[starts[group] : starts[group] + n * height].reshape(height, n)
                np.add.at(matrix, (rows[:, None], columns), piece.T)
            else:
                once = np.append(True, rows[1:] != rows[:-1])
                columns = encoding.columns[starts[group] : starts[group] + n]
                matrix[np.ix_(rows[once], columns)] += piece.T[once]
    return matrix


def read_order(encoding: Encoding, columns: NDArray[np.int32]) -> None:
    """Put `columns`, those of the encoding, in the order in which kernels read them: of APART groups [column][row]."""
    starts, apart = column_starts(encoding), encoding.flags & APART != 0
    if not apart.any():
        return
    sizes = np.stack([encoding.heights, encoding.counts], 1)
    for height, n in np.unique(sizes[apart], axis=0):
        alike = starts[apart & (encoding.heights == height) & (encoding.counts == n)]
        places = alike[:, None, None] + np.arange(height * n).reshape(height, n)
        columns[places.ravel()] = columns[places.swapaxes(1, 2).ravel()]


def encode_rows(
    matrix: Values, heights: Sequence[int], section_values: int, *, chunk: int = 0, union: int = 1, apart: int = 1,
    fill: int = 0,
) -> Encoding:  # fmt: skip
    """Encode by rows that keep the same columns: each such class is cut into groups of the largest heights that fit.

    Rows are reordered so that groups fill. `heights` must contain 1, or a divisor of all classes. A section closes at
    `section_values` values. With `chunk` > 0 the columns are cut at its multiples, a section's rows go through them one
    after the other, so that a chunk of the input stays in cache, and `section_values` counts one chunk. With `union` >
    1 that many neighbouring rows keep what any of them keeps, which pads with zeros and makes wide groups out of masks
    that share little. With `apart` > 1 that many single rows of about as many columns are computed side by side, each
    with columns of its own. Rows that are left of a class, from FILLED to less than `fill`, become a group of
    the least height that holds them: its last row comes again, of zeros.
    """
    matrix = np.ascontiguousarray(matrix)
    m, k = matrix.shape
    mask = matrix != 0
    if union > 1:
        blocks = np.logical_or.reduceat(mask, np.arange(0, m, union), axis=0)
        mask = np.repeat(blocks, union, axis=0)[:m]
    builder = _Builder(matrix, apart)
    tall = sorted(heights, reverse=True)
    units: list[tuple[Ints, Ints]] = []  # rows, columns; the same columns object where they are shared
    held = 0
    for rows in _classes(mask):
        columns = np.flatnonzero(mask[rows[0]])
        for piece in _filled(rows, tall, fill):
            units.append((piece, columns))
            held += len(piece) * (-(-len(columns) * chunk // k) if 0 < chunk < k else len(columns))
            if held >= section_values:
                builder.section(units, chunk, k)
                units, held = [], 0
    if units:
        builder.section(units, chunk, k)
    return builder.finish()


def encode_blocks(
    matrix: Values,
    block: tuple[int, int],
    heights: Sequence[int],
    section_rows: int,
    *,
    columns_outer: bool = True,
) -> Encoding:
    """Encode block by block: inside each, the kept rows by the kept columns, added up over the blocks of a strip.

    For BCR, where each block keeps rows of its own. `heights` must hold 1 and are the group heights to use, up to 8; a
    block that keeps more rows than the tallest is cut. A section holds the strips of `section_rows` rows; in it, blocks
    go column by column of blocks (`columns_outer`), or strip by strip. A row starts with the first of its blocks and
    ends with the last.
    """
    matrix = np.ascontiguousarray(matrix)
    m, k = matrix.shape
    high, wide = block
    strips, across = -(-m // high), -(-k // wide)
    mask = np.zeros((strips * high, across * wide), bool)
    mask[:m, :k] = matrix != 0
    tiles = mask.reshape(strips, high, across, wide)
    row_kept: NDArray[np.bool_] = np.moveaxis(np.any(tiles, axis=3), 1, 2)  # [strip, across, high]
    column_kept: NDArray[np.bool_] = np.any(tiles, axis=1)  # [strip, across, wide]
    builder = _Builder(matrix)
    heights = [height for height in heights if height <= MOST_MIXED]
    per_section = max(1, section_rows // high)
    for first in range(0, strips, per_section):
        section = range(first, min(first + per_section, strips))
        held = np.zeros(m, bool)  # rows with partial sums
        left = np.zeros(strips * high, np.int64)  # blocks that a row is still to be in
        left[first * high : (section[-1] + 1) * high] = row_kept[section.start : section.stop].sum(1).ravel()
        rest = first * high + np.flatnonzero(left[first * high : min((section[-1] + 1) * high, m)] == 0)
        for some in (
            [[(s, j) for s in section] for j in range(across)]
            if columns_outer
            else [[(s, j) for j in range(across)] for s in section]
        ):
            units = []
            for strip, j in some:
                kept = np.flatnonzero(row_kept[strip, j]) + strip * high
                columns = np.flatnonzero(column_kept[strip, j]) + j * wide
                units += [(part, columns) for part in _cut(kept, heights)]
            units.sort(key=_tallest_first)
            flags = []
            for rows, _ in units:
                left[rows] -= 1
                flags.append(_row_flags(held[rows], left[rows] == 0))
                held[rows] = True
            builder.run(units, flags)
        pieces = _cut(rest, heights)
        builder.run([(piece, np.empty(0, np.int64)) for piece in pieces], [FINAL] * len(pieces))
        builder.close()
    return builder.finish()


def _row_flags(loads: NDArray[np.bool_], ends: NDArray[np.bool_]) -> int:
    """Flags of a group by what its rows need."""
    if loads.all() == loads.any() and ends.all() == ends.any():
        return (LOAD if loads.all() else 0) | (FINAL if ends.all() else 0)
    bits = 1 << np.arange(len(loads))
    return MIXED | int(bits[loads].sum()) << LOADS | int(bits[ends].sum()) << ENDS


def _cut(rows: Ints, heights: Sequence[int]) -> list[Ints]:
    """Rows in pieces of the largest heights that fit."""
    pieces, start = [], 0
    for height in sorted(heights, reverse=True):
        while len(rows) - start >= height:
            pieces.append(rows[start : start + height])
            start += height
    return pieces


def _filled(rows: Ints, tall: Sequence[int], fill: int) -> list[Ints]:
    """Rows in pieces of these heights, the tallest first; see `encode_rows` for `fill`."""
    left = len(rows) % fill if fill else 0
    last = [rows[len(rows) - left :]] if left >= FILLED else []
    pieces = _cut(rows[: len(rows) - left] if last else rows, tall)
    assert sum(map(len, (*pieces, *last))) == len(rows), f"{len(rows)} rows are no sum of heights {tall}"
    return [*pieces, *(np.pad(some, (0, min(h for h in tall if h >= left) - left), "edge") for some in last)]


def _tallest_first(unit: tuple[Ints, Ints]) -> int:
    return -len(unit[0])


def _classes(mask: NDArray[np.bool_]) -> list[Ints]:
    """Rows with equal masks, as lists of row numbers; classes in the order of their first rows."""
    packed = np.packbits(mask, axis=1)
    keys = packed.view([("", packed.dtype)] * packed.shape[1]).ravel() if packed.shape[1] < 64 else None
    if keys is None:  # long rows: hash them, which Python does faster than numpy sorts
        numbers: dict[bytes, int] = {}
        inverse = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in packed])
    else:
        inverse = np.unique(keys, return_inverse=True)[1].ravel()
    order = np.argsort(inverse, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)
    return sorted(classes, key=lambda rows: int(rows[0]))


class _Builder:
    """Collects groups in order."""

    def __init__(self, matrix: Values, apart: int = 1) -> None:
        self.matrix = matrix
        self.apart = apart
        self.heights: list[int] = []
        self.counts: list[int] = []
        self.flags: list[int] = []
        self.rows: list[Ints] = []
        self.columns: list[Ints] = []
        self.values: list[Values] = []
        self.parts: list[int] = [0]
        self.sections: list[int] = [0]

    def run(self, units: list[tuple[Ints, Ints]], flags: int | list[int]) -> None:
        """Append groups with the same flags, or each with its own, tallest first so that equal heights are
        neighbours."""
        if self.apart > 1 and isinstance(flags, int):
            units = self._side_by_side(units, flags)
        given = [flags] * len(units) if isinstance(flags, int) else flags
        order = sorted(range(len(units)), key=lambda i: _tallest_first(units[i]))
        alike = groupby(order, key=lambda i: (len(units[i][0]), id(units[i][1])))
        last: Any = None
        for (height, _), some in alike:
            which = list(some)
            pieces = [units[i] for i in which]
            columns, n = pieces[0][1], len(pieces)
            rows = np.concatenate([piece for piece, _ in pieces])
            shared = columns is last and len(columns) > 0
            again = SHARED if len(columns) else 0
            self.heights += [height] * n
            self.counts += [len(columns)] * n
            self.flags += [given[i] | (again if shared or i != which[0] else 0) for i in which]
            self.rows.append(rows)
            if not shared:
                self.columns.append(columns)
            if len(columns):
                values = self.matrix[rows[:, None], columns].reshape(n, height, len(columns))
                own = rows.reshape(n, height)
                values[:, 1:][own[:, 1:] == own[:, :-1]] = 0
                self.values.append(values.swapaxes(1, 2).ravel())
            last = columns

    def _side_by_side(self, units: list[tuple[Ints, Ints]], flags: int) -> list[tuple[Ints, Ints]]:
        """Append single rows in groups of `apart`, most columns first, and give back the others. The fewer columns of a
        row are filled up with its last, of value zero."""
        single = sorted((u for u in units if len(u[0]) == 1 and len(u[1])), key=lambda unit: -len(unit[1]))
        whole = len(single) // self.apart * self.apart
        for i in range(0, whole, self.apart):
            some = single[i : i + self.apart]
            n = len(some[0][1])
            rows = np.concatenate([row for row, _ in some])
            columns = np.stack([np.pad(own, (0, n - len(own)), "edge") for _, own in some])
            values = self.matrix[rows[:, None], columns]
            for row, (_, own) in zip(values, some, strict=True):
                row[len(own) :] = 0
            self.heights.append(self.apart)
            self.counts.append(n)
            self.flags.append(flags | APART)
            self.rows.append(rows)
            self.columns.append(columns.ravel())
            self.values.append(values.T.ravel())
        taken = {id(unit) for unit in single[:whole]}
        return [unit for unit in units if id(unit) not in taken]

    def section(self, units: list[tuple[Ints, Ints]], chunk: int, k: int) -> None:
        """Append a section: its groups as they are, or chunk after chunk of columns."""
        if not chunk or chunk >= k:
            self.run(units, FINAL)
        else:
            cuts: dict[int, Ints] = {}
            for _, columns in units:
                if id(columns) not in cuts:
                    cuts[id(columns)] = np.searchsorted(columns, np.arange(0, k + chunk, chunk))
            n = -(-k // chunk)
            pieces: dict[tuple[int, int], Ints] = {}
            for i in range(n):
                run = []
                for rows, columns in units:
                    key = (id(columns), i)
                    if key not in pieces:
                        low, high = cuts[id(columns)][i : i + 2]
                        pieces[key] = columns[low:high]
                    if len(pieces[key]) or i in (0, n - 1):
                        run.append((rows, pieces[key]))
                self.run(run, (LOAD if i else 0) | (FINAL if i == n - 1 else 0))
                if len(self.heights) > self.parts[-1]:
                    self.parts.append(len(self.heights))
        self.close()

    def close(self) -> None:
        """End a section, and the part that it ends with."""
        self.sections.append(len(self.heights))
        if len(self.heights) > self.parts[-1]:
            self.parts.append(len(self.heights))

    def finish(self) -> Encoding:
        def joined(parts: list[Any], dtype: Any) -> NDArray[Any]:
            return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)

        m, k = self.matrix.shape
        return Encoding(
            (m, k),
            np.array(self.heights, np.int64),
            np.array(self.counts, np.int64),
            np.array(self.flags, np.int64),
            joined(self.rows, np.int64),
            joined(self.columns, np.int64),
            joined(self.values, self.matrix.dtype),
            np.array(self.parts, np.int64),
            np.array(self.sections, np.int64),
        )


ARRAYS = ("heights", "counts", "flags", "rows", "steps", "jumps", "parts", "sections", "values")


def compact(encoding: Encoding) -> dict[str, NDArray[Any]]:
    """The arrays as an artefact stores them, by the names of ARRAYS: indices in the smallest unsigned type that holds
    them, columns as uint8 steps from one to the next. A step that isn't 1 to 255 is 0, and its value the next of
    `jumps`, int32."""

    def small(a: Ints) -> NDArray[Any]:
        top = int(a.max(initial=0))
        return a.astype(np.uint8 if top < 1 << 8 else np.uint16 if top < 1 << 16 else np.uint32)

    steps = np.diff(encoding.columns, prepend=0)
    far = (steps < 1) | (steps > 255)
    names = ("heights", "counts", "flags", "rows", "parts", "sections")
    arrays: dict[str, NDArray[Any]] = {name: small(getattr(encoding, name)) for name in names}
    arrays |= {"steps": np.where(far, 0, steps).astype(np.uint8), "jumps": steps[far].astype(np.int32)}
    return arrays | {"values": encoding.values}


def expand(shape: tuple[int, int], arrays: dict[str, NDArray[Any]]) -> Encoding:
    """Inverse of `compact`; `values` stays the same array."""
    names = ("heights", "counts", "flags", "rows", "parts", "sections")
    columns = np.empty(arrays["steps"].size, np.int32)
    expand_columns(arrays, columns)
    return Encoding(
        shape, columns=columns, values=arrays["values"], **{name: arrays[name].astype(np.int64) for name in names}
    )


def expand_columns(arrays: dict[str, NDArray[Any]], out: NDArray[np.int32]) -> None:
    """Write the columns of `compact`'s arrays to `out`, int32[number of steps]. There may be millions of them, so
    nothing of that size is held beside it but a bool each."""
    out[...] = arrays["steps"]
    out[arrays["steps"] == 0] = arrays["jumps"]
    np.cumsum(out, out=out, dtype=np.int32)
