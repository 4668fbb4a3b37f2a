"""Which scheme do these zeros obey? The one that needs the fewest bits to say which weights are
kept.

Of the schemes that a mask obeys, each says the mask as a list of yes and no per group; its length
in bits is the number of groups times the entropy of their share of yes. The shortest is the most
structured.
"""

from collections.abc import Iterator
from math import comb, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import box_sizes, boxes, reduce_boxes
from prunus.sparsity.check import check, fits
from prunus.sparsity.crossed import sides
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]

HEIGHTS = tuple(2**k for k in range(1, 13))  # rows or filters of a block
WIDTHS = tuple(2**k for k in range(1, 15))  # columns or channels of a block
N_M = ((1, 8), (1, 4), (2, 8), (1, 2), (2, 4), (4, 8), (3, 4))  # the sparser first
CHANCE = 1 << 16  # one kept weight in so many may be zero by chance (float32 draws are, about so)
MARGIN = 0.97  # a structure must save this much: small masks obey some by chance
SAMPLE = 256  # rows and columns looked at first, to turn down most block sizes cheaply


def detect(weights: NDArray[Any]) -> tuple[Scheme, float]:
    """The most structured scheme that the zeros of `weights` [o, i, ...] obey, and their sparsity.

    A zero in 65,536 kept weights counts as chance. Block sizes tried are powers of two. Weights
    without zeros are unstructured at 0.0. block-row:RxC is told from other C (and block-column from
    other R) by the structure; the extent along which its groups compete leaves a trace in the
    counts only, and is where these are most even.
    """
    mask = np.ascontiguousarray(weights != 0)
    sparsity = 1 - int(np.count_nonzero(mask)) / mask.size if mask.size else 0.0
    best = Scheme("unstructured")
    if sparsity == 0 or mask.ndim < 2:
        return best, sparsity
    if sparsity == 1:
        return Scheme("filter"), sparsity
    least = _entropy(mask.mean()) * mask.size
    for scheme in _obeyed(mask):
        bits = _bits(mask, scheme)
        if bits < least * (MARGIN if best.name == "unstructured" else 1 - 1e-9):
            best, least = scheme, bits
    return best, sparsity


def _obeyed(mask: Bools) -> Iterator[Scheme]:
    """Schemes that the mask obeys, the simplest first; of blocks the largest first."""
    for name in ("filter", "channel"):
        if _fills(mask, Scheme(name)):
            yield Scheme(name)
    o, columns = len(mask), mask[0].size
    sizes = {"rows": _until(HEIGHTS, o), "columns": _until(WIDTHS, columns)}
    yield from _largest_line(mask, "block-column", sizes["rows"], columns)
    yield from _largest_line(mask, "block-row", sizes["columns"], o)
    channels = _until(WIDTHS, mask.shape[1])
    yield from _staircase(mask, "punched", (1, *sizes["rows"]), (1, *channels))
    yield from _staircase(mask, "bcr", sizes["rows"], sizes["columns"])
    for n, m in N_M:
        if m <= mask.shape[1] and check(mask, Scheme("n:m", (n, m))) is None:
            yield Scheme("n:m", (n, m))
    pattern = Scheme("pattern", (4,))
    if fits(mask.shape, pattern) is None and check(mask, pattern) is None:
        yield pattern


def _until(sizes: tuple[int, ...], extent: int) -> tuple[int, ...]:
    """The sizes up to the first that covers `extent`."""
    return tuple(size for size in sizes if size < 2 * extent)


def _obeys(mask: Bools, scheme: Scheme) -> bool:
    return _fills(mask[:SAMPLE, :SAMPLE], scheme, 4) and _fills(mask, scheme)


def _fills(mask: Bools, scheme: Scheme, slack: int = 0) -> bool:
    """Do groups that keep anything keep all, but for chance zeros? Cheaper than `check`."""
    if scheme.name == "bcr":
        n_rows, n_cols = sides(mask, scheme)
        room = int((n_rows * n_cols).sum())
    else:
        grid = boxes(mask.shape, scheme)
        kept = reduce_boxes(mask.reshape(grid.view), np.maximum, grid.box)
        room = int((kept * box_sizes(grid)).sum())
    n_kept = int(np.count_nonzero(mask))
    return room - n_kept <= n_kept // CHANCE + slack


def _largest_line(mask: Bools, name: str, sizes: tuple[int, ...], along: int) -> Iterator[Scheme]:
    """The block-column of most rows, or the block-row of most columns, that the mask obeys."""
    largest = 0
    for size in sizes:  # a mask that obeys a size obeys its divisors
        if not _obeys(mask, _line(name, size, 1)):
            break
        largest = size
    if largest:
        yield _line(name, largest, _balanced_extent(mask, _line(name, largest, 1), along))


def _line(name: str, size: int, length: int) -> Scheme:
    return Scheme(name, (size, length) if name == "block-column" else (length, size))


def _balanced_extent(mask: Bools, scheme: Scheme, along: int) -> int:
    """The scope in which numbers of kept groups are most even, for random ones; 64 when they differ
    by 2.
    """
    grid = boxes(mask.shape, scheme)
    assert grid.axis is not None
    kept = reduce_boxes(mask.reshape(grid.view), np.maximum, grid.box).astype(np.int32)
    density = float(kept.mean())
    best, least = 64, 1.0
    for length in _until(WIDTHS, along):
        whole = along if length >= along else along // length * length
        part = np.moveaxis(kept, grid.axis, 0)[:whole]
        counts = np.add.reduceat(part, np.arange(0, whole, length), axis=0)
        if counts.max() - counts.min() > 1 or counts.size < 2:
            continue
        spread = float(counts.var()) / (min(length, along) * density * (1 - density) + 1e-9)
        if spread < 0.9 * least:
            best, least = length, spread
    return best


def _staircase(mask: Bools, name: str, heights: tuple[int, ...], widths: tuple[int, ...]) -> Iterator[Scheme]:
    """The block sizes that the mask obeys and that neither twice the height nor twice the width
    would.
    """
    reach = len(widths)
    found: list[tuple[int, int]] = []
    for height in heights:
        size = 0
        while size < reach and _obeys(mask, Scheme(name, (height, widths[size]))):
            size += 1
        reach = size
        if not reach:
            break
        found = [pair for pair in found if pair[1] != size] + [(height, size)]
    for height, size in reversed(found):
        yield Scheme(name, (height, widths[size - 1]))


def _bits(mask: Bools, scheme: Scheme) -> float:
    """Bits that say the mask, given the scheme."""
    if scheme.name == "bcr":
        matrix = mask.reshape(1, len(mask), -1).transpose(1, 2, 0)
        rows, cols = scheme.block
        bits = 0.0
        for box in ((1, cols, 1), (rows, 1, 1)):
            kept = reduce_boxes(matrix, np.maximum, box)
            bits += kept.size * _entropy(kept.mean())
        return bits
    if scheme.name == "n:m":
        m = scheme.block[1]
        counts = reduce_boxes(mask.reshape(*mask.shape[:2], -1).astype(np.int32), np.add, (1, m, 1))
        groups = np.bincount(counts.ravel(), minlength=m + 1)
        shares = groups / groups.sum()
        said = [-log2(share) + log2(comb(m, k)) if share else 0.0 for k, share in enumerate(shares)]
        return float(groups @ said)
    if scheme.name == "pattern":
        kernels = mask.reshape(-1, 9).any(1)
        return kernels.size * _entropy(kernels.mean()) + 3.0 * float(kernels.sum())
    grid = boxes(mask.shape, scheme)
    kept = reduce_boxes(mask.reshape(grid.view), np.maximum, grid.box)
    return kept.size * _entropy(kept.mean())


def _entropy(share: float) -> float:
    """Bits of one yes or no of which `share` are yes."""
    share = float(share)
    return 0.0 if share in (0.0, 1.0) else -share * log2(share) - (1 - share) * log2(1 - share)
