"""BCR, block column-row: in each block of the matrix, kept rows times kept columns.

Source: Niu et al., "GRIM: A General, Real-Time Deep Learning Inference Framework for Mobile Devices
based on Fine-Grained Structured Weight Sparsity", TPAMI 2022, arXiv:2108.11033. The projection is
ours: choosing a rows and b columns of largest energy is hard jointly, so rows and columns are
chosen alternately, from both starts.
"""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import energy, reduce_boxes, slabs
from prunus.sparsity.rank import top, top_rows
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]
MAX_ROUNDS = 4  # alternation stops gaining after 1 to 3


@final
@dataclass(frozen=True)
class _Region:
    """Blocks of one size: `height` x `width`, `n_down` x `n_across` of them; and how many of each
    are kept.

    Each keeps `coarse` of its shorter side and `fine` of its longer, and `n_extra` of the blocks
    one more of the latter. flip: the shorter side is the columns.
    """

    top: int
    left: int
    n_down: int
    n_across: int
    height: int
    width: int
    flip: bool
    coarse: int
    fine: int = 0
    n_extra: int = 0

    @property
    def n_blocks(self) -> int:
        return self.n_down * self.n_across


def project_crossed(weights: NDArray[Any], scheme: Scheme, density: float, split: float = 0.5) -> Bools:
    """bool like `weights`: rows and columns of each block that stay, `density` of the weights.

    split: share of the compression that rows carry: rows keep density**split of each block and
    columns the rest; 0.5 is half each, 0 columns only, 1 rows only. The shorter side of a block
    takes the nearest whole number, the longer what then is missing; where that isn't whole, the
    blocks that lose least have one less.

    Masks of two densities are not nested: rows and columns are chosen jointly.
    """
    matrix = weights.reshape(len(weights), -1)
    target = density * matrix.size
    if abs(np.count_nonzero(matrix) - target) < 0.5:
        support: Bools = matrix != 0  # a point of the set is its own projection
        if check_crossed(support, scheme) is None:
            return support.reshape(weights.shape)
    rows, cols = scheme.block
    mask = np.zeros(matrix.shape, bool)
    scaled = energy(matrix)
    for region in _plan(matrix.shape, rows, cols, density, split):
        height, width = region.n_down * region.height, region.n_across * region.width
        area = np.s_[region.top : region.top + height, region.left : region.left + width]
        _project_region(scaled[area], mask[area], region)
    return mask.reshape(weights.shape)


def _plan(shape: tuple[int, int], rows: int, cols: int, density: float, split: float) -> list[_Region]:
    """The up to four regions of equal blocks, with counts that together meet `density`."""
    regions = []
    for top_row, n_down, height in _pieces(shape[0], rows):
        for left, n_across, width in _pieces(shape[1], cols):
            flip = height > width and 0 < split < 1
            side = width if flip else height
            share = density ** (1 - split if flip else split)
            coarse = max(floor(side * share + 0.5), ceil(side * density - 1e-9), density > 0)
            regions.append(_Region(top_row, left, n_down, n_across, height, width, flip, coarse))
    regions.sort(key=lambda region: -region.coarse)
    carry = 0.0  # weights still owed by the regions before: the finest steps come last
    counted: list[_Region] = []
    for index, region in enumerate(regions):
        side = region.height if region.flip else region.width
        carry += density * region.n_blocks * region.height * region.width
        pieces = 0
        if region.coarse:
            pieces = min(max(floor(carry / region.coarse + 0.5), 0), region.n_blocks * side)
        if density > 0 and index == len(regions) - 1 and not any(map(_keeps, counted)):
            pieces = max(pieces, 1)
        carry -= pieces * region.coarse
        fine, n_extra = divmod(pieces, region.n_blocks)
        counted.append(replace(region, fine=fine, n_extra=n_extra))
    return counted


def _keeps(region: _Region) -> bool:
    return region.coarse > 0 and (region.fine > 0 or region.n_extra > 0)


def _pieces(extent: int, size: int) -> list[tuple[int, int, int]]:
    """(start, how many, length) of the whole pieces and of the smaller last one."""
    whole, rest = divmod(extent, size)
    pieces = [(0, whole, size)] if whole else []
    return [*pieces, (whole * size, 1, rest)] if rest else pieces


def _project_region(scaled: NDArray[Any], mask: Bools, region: _Region) -> None:
    """Write the mask of a region, given its energies."""
    if not _keeps(region):
        return
    count = region.fine + (region.n_extra > 0)
    n = region.n_blocks
    short, long = sorted((region.height, region.width)) if region.flip else (region.height, region.width)
    coarse, fine = np.zeros((n, short), bool), np.zeros((n, long), bool)
    weakest = np.zeros(n, scaled.dtype)
    steps = list(slabs(region.n_down, scaled.shape[1] * region.height))
    for step in steps:
        blocks = slice(step.start * region.n_across, step.stop * region.n_across)
        tiles = _tiles(scaled, region, step)
        coarse[blocks], fine[blocks] = _alternate(tiles, region.coarse, count)
        weakest[blocks] = _column_energy(tiles, coarse[blocks], fine[blocks]).min(1)
    if region.n_extra:
        loses = ~top(weakest, region.n_extra)
        for step in steps:
            start = step.start * region.n_across
            blocks = start + np.flatnonzero(loses[start : step.stop * region.n_across])
            tiles = _tiles(scaled, region, step)[blocks - start]
            chosen = _column_energy(tiles, coarse[blocks], fine[blocks])
            last = long - 1 - chosen[:, ::-1].argmin(1)
            fine[blocks, last] = False
            if region.fine:
                coarse[blocks], fine[blocks] = _improve(tiles, fine[blocks], region.coarse, region.fine)
    for step in steps:
        blocks = slice(step.start * region.n_across, step.stop * region.n_across)
        kept = coarse[blocks, :, None] & fine[blocks, None, :]
        if region.flip:
            kept = kept.swapaxes(1, 2)
        kept = kept.reshape(-1, region.n_across, region.height, region.width).swapaxes(1, 2)
        area = slice(step.start * region.height, step.stop * region.height)
        mask[area] = kept.reshape(-1, mask.shape[1])


def _tiles(scaled: NDArray[Any], region: _Region, step: slice) -> NDArray[Any]:
    """float[blocks, coarse side, fine side] of the block rows `step`, blocks in row-major order."""
    part = scaled[step.start * region.height : step.stop * region.height]
    part = part.reshape(-1, region.height, region.n_across, region.width).swapaxes(1, 2)
    part = part.reshape(-1, region.height, region.width)
    return np.ascontiguousarray(part.swapaxes(1, 2)) if region.flip else part


def _alternate(tiles: NDArray[Any], n_rows: int, n_cols: int) -> tuple[Bools, Bools]:
    """bool[n, h], bool[n, w]: rows and columns of large common energy; better of both starts."""
    rows, cols = _improve(tiles, top_rows(tiles.sum(1), n_cols), n_rows, n_cols)
    if n_rows == tiles.shape[1] or n_cols == tiles.shape[2]:
        return rows, cols
    first_rows = top_rows(tiles.sum(2), n_rows)
    other_cols = top_rows(_along_rows(tiles, first_rows), n_cols)
    other_rows, other_cols = _improve(tiles, other_cols, n_rows, n_cols)
    better = _energy(tiles, other_rows, other_cols) > _energy(tiles, rows, cols)
    rows[better], cols[better] = other_rows[better], other_cols[better]
    return rows, cols


def _improve(tiles: NDArray[Any], cols: Bools, n_rows: int, n_cols: int) -> tuple[Bools, Bools]:
    """Alternate from given columns until the columns stay: never loses energy."""
    for _ in range(MAX_ROUNDS):
        rows = top_rows(np.einsum("nhw,nw->nh", tiles, cols.astype(tiles.dtype)), n_rows)
        if n_rows == tiles.shape[1]:
            break
        again = top_rows(_along_rows(tiles, rows), n_cols)
        if np.array_equal(again, cols):
            break
        cols = again
    return rows, cols


def _along_rows(tiles: NDArray[Any], rows: Bools) -> NDArray[Any]:
    """float[n, w]: energy of each column over the kept rows."""
    energies: NDArray[Any] = np.einsum("nhw,nh->nw", tiles, rows.astype(tiles.dtype))
    return energies


def _column_energy(tiles: NDArray[Any], rows: Bools, cols: Bools) -> NDArray[Any]:
    """float[n, w]: energy over the kept rows of each kept column, infinite where not kept."""
    return np.where(cols, _along_rows(tiles, rows), np.inf)


def _energy(tiles: NDArray[Any], rows: Bools, cols: Bools) -> NDArray[Any]:
    """float[n]: energy of the kept rows and columns of each block."""
    energies: NDArray[Any] = (_along_rows(tiles, rows) * cols).sum(1)
    return energies


def sides(mask: Bools, scheme: Scheme) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64[n_down, n_across, 1] each: rows and columns of each block that keep anything."""
    matrix = mask.reshape(len(mask), -1, 1)
    rows, cols = scheme.block
    kept = reduce_boxes(matrix, np.maximum, (1, cols, 1))
    n_rows = reduce_boxes(kept.astype(np.int64), np.add, (rows, 1, 1))
    kept = reduce_boxes(matrix, np.maximum, (rows, 1, 1))
    return n_rows, reduce_boxes(kept.astype(np.int64), np.add, (1, cols, 1))


def check_crossed(mask: Bools, scheme: Scheme) -> Refusal | None:
    """None when each block of `mask` is rows times columns, else the first block that isn't."""
    n_rows, n_cols = sides(mask, scheme)
    if int((n_rows * n_cols).sum()) == np.count_nonzero(mask):  # what is kept lies in their product
        return None
    rows, cols = scheme.block
    matrix = mask.reshape(len(mask), -1, 1)
    n_kept = reduce_boxes(matrix.astype(np.int32), np.add, (rows, cols, 1))
    bad = n_rows * n_cols != n_kept
    down, across, _ = np.unravel_index(int(bad.argmax()), bad.shape)
    return Refusal(
        f"not {scheme}: block at row {down * rows}, column {across * cols}: "
        f"{n_kept[down, across, 0]} weights kept, "
        f"of {n_rows[down, across, 0]} rows times {n_cols[down, across, 0]} columns"
    )
