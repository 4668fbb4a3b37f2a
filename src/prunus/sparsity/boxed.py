"""Schemes whose weights live in boxes: unstructured, filter, channel, punched, block-row,
block-column, n:m.

Boxes are ranked by the root mean square of their weights. Those of block-row and block-column
compete along one axis of their block: each block keeps its share of them, and where shares aren't
whole, blocks differ by one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import (
    Boxes,
    box_sizes,
    boxes,
    energy,
    reduce_boxes,
    slabs,
    spread_boxes,
)
from prunus.sparsity.rank import ranks, top_weight
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]


def project_boxed(weights: NDArray[Any], scheme: Scheme, density: float) -> Bools:
    """bool like `weights`: the boxes that stay, `density` of the weights.

    The order of boxes doesn't depend on `density`: masks are nested.
    """
    grid = boxes(weights.shape, scheme)
    view = weights.reshape(grid.view)
    if grid.box == (1, 1, 1):
        score, sizes = np.abs(view), np.ones((1, 1, 1), np.int64)
    else:
        sizes = box_sizes(grid)
        score = reduce_boxes(energy(view), np.add, grid.box)
        if sizes.min() != sizes.max():
            score = score / sizes
    at_least = int(density > 0)
    if grid.axis is None:
        keep = top_weight(score, sizes, density * weights.size, at_least)
    else:
        n_kept = scheme.block[0] if scheme.name == "n:m" else None
        keep = _top_in_scopes(score, sizes, grid, density, n_kept)
    return spread_boxes(keep, grid).reshape(weights.shape)


def _top_in_scopes(
    score: NDArray[Any], sizes: NDArray[np.int64], grid: Boxes, density: float, n_kept: int | None
) -> Bools:
    """Boxes that stay where they compete along an axis: all of some ranks, and the best of the next
    rank.
    """
    assert grid.axis is not None
    score = np.moveaxis(score, grid.axis, -1)
    sizes = np.broadcast_to(np.moveaxis(sizes, grid.axis, -1), score.shape)
    extent, length = score.shape[-1], grid.length
    split = extent - extent % length
    slice_size = int(np.prod(grid.view)) // extent
    whole, rest = split // length, extent - split
    quotas = _balanced(whole, length, rest, density) if n_kept is None else _fixed(whole, length, rest, n_kept)
    sure_whole, sure_rest, next_whole, next_rest, missing = quotas
    keep = np.zeros(score.shape, bool)
    rival = np.zeros(score.shape, bool)
    for rows in slabs(len(score), score[:1].size):
        part = score[rows]
        if whole:
            rank = ranks(part[..., :split].reshape(*part.shape[:2], whole, length))
            rank = rank.reshape(*part.shape[:2], split)
            keep[rows, :, :split] = rank < sure_whole
            rival[rows, :, :split] = (rank == sure_whole) & next_whole
        if rest:
            rank = ranks(part[..., split:])
            keep[rows, :, split:] = rank < sure_rest
            rival[rows, :, split:] = (rank == sure_rest) & next_rest
    if next_whole or next_rest:
        at_least = int(density > 0 and not sure_whole and not sure_rest)
        keep[rival] = top_weight(score[rival], sizes[rival], missing * slice_size, at_least)
    return np.moveaxis(keep, -1, grid.axis)


_Quotas = tuple[int, int, bool, bool, float]


def _fixed(whole: int, length: int, rest: int, n_kept: int) -> _Quotas:
    """Quotas of n:m: whole scopes keep exactly n; the smaller last ones n/m of theirs, rounded over
    the layer.
    """
    sure = n_kept * rest // length
    missing = n_kept * rest / length - sure
    return n_kept if whole else 0, sure, False, missing > 0, missing


def _balanced(whole: int, length: int, rest: int, density: float) -> _Quotas:
    """Quotas so that each scope keeps its share.

    Places are handed out in the order of (rank + 1/2) / scope length, the divisor method of
    Webster, which grows each scope's share monotonically with the density. Returns how many a whole
    and a rest scope keep for sure, which of the two kinds compete for the places beyond, and how
    many such slices of the layer are missing.
    """
    places = [(2 * rank + 1, length, whole) for rank in range(length if whole else 0)]
    places += [(2 * rank + 1, rest, 1) for rank in range(rest)]
    places.sort(key=lambda place: place[0] / place[1])
    missing = density * (whole * length + rest)
    sure_whole = sure_rest = index = 0
    while index < len(places):
        odd, of, _ = places[index]
        equals = [p for p in places[index : index + 2] if p[0] * of == odd * p[1]]
        total = sum(place[2] for place in equals)
        kinds = {place[1] for place in equals}
        if total > missing:
            return sure_whole, sure_rest, bool(whole) and length in kinds, rest in kinds, missing
        missing -= total
        sure_whole += bool(whole) and length in kinds
        sure_rest += rest in kinds
        index += len(equals)
    return sure_whole, sure_rest, False, False, 0.0


def check_boxed(mask: Bools, scheme: Scheme) -> Refusal | None:
    """None when every box of `mask` is kept or removed whole, else the first that is not.

    Under n:m: when every m have at most n.
    """
    grid = boxes(mask.shape, scheme)
    view = mask.reshape(grid.view)
    if scheme.name == "n:m":
        n, m = scheme.block
        counts = reduce_boxes(view.astype(np.int32), np.add, (1, m, 1))
        bad = counts > n
        grid = Boxes(grid.view, (1, m, 1))
    else:
        if grid.box == (1, 1, 1):
            return None
        bits = view.view(np.uint8)
        kept = reduce_boxes(bits, np.maximum, grid.box)
        bad = kept != reduce_boxes(bits, np.minimum, grid.box)
    if not bad.any():
        return None
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    places = [
        f"{label} {_span(int(at), size, extent)}"
        for label, at, size, extent in zip(_labels(scheme), first, grid.box, grid.view, strict=True)
        if extent > 1
    ]
    found = f"{counts[first]} kept" if scheme.name == "n:m" else "partly kept"
    return Refusal(f"not {scheme}: {', '.join(places) or 'the weight'}: {found}")


def _labels(scheme: Scheme) -> tuple[str, str, str]:
    by_channel = scheme.name in ("channel", "punched", "n:m")
    return ("filter", "channel" if by_channel else "column", "kernel position")


def _span(at: int, size: int, extent: int) -> str:
    start, stop = at * size, min(at * size + size, extent)
    return f"{start}" if stop == start + 1 else f"{start}-{stop - 1}"
