"""Boxes: which weights live and die together, and which boxes compete for a place.

A weight tensor is seen as a box grid over (filters, columns, positions). Each box is kept or
removed whole. Boxes compete in the whole layer, or along one axis among `length` neighbours, each
such scope giving its share.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.scheme import Scheme

Shape3 = tuple[int, int, int]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Boxes:
    """A grid of boxes, starting at 0 and smaller at the edges.

    view: the weights reshaped. box: extent of a box in it. axis, length: along which axis of the
    view how many boxes compete; None: all boxes of the layer do.
    """

    view: Shape3
    box: Shape3
    axis: int | None = None
    length: int = 0


def boxes(shape: tuple[int, ...], scheme: Scheme) -> Boxes:
    """The boxes of a scheme that has them (not bcr, not pattern) on weights [o, i, ...] of
    `shape`.
    """
    o, i = shape[:2]
    positions = int(np.prod(shape[2:]))
    by_channel: Shape3 = (o, i, positions)
    matrix: Shape3 = (o, i * positions, 1)
    match scheme.name, scheme.block:
        case "unstructured", _:
            return Boxes(matrix, (1, 1, 1))
        case "filter", _:
            return Boxes(matrix, (1, max(i * positions, 1), 1))
        case "channel", _:
            return Boxes(by_channel, (max(o, 1), 1, max(positions, 1)))
        case "punched", (f, c):
            return Boxes(by_channel, (f, c, 1))
        case "n:m", (_, m):
            return Boxes(by_channel, (1, 1, 1), axis=1, length=m)
        case "block-row", (r, c):
            return Boxes(matrix, (1, c, 1), axis=0, length=r)
        case "block-column", (r, c):
            return Boxes(matrix, (r, 1, 1), axis=1, length=c)
    raise AssertionError(f"{scheme} has no boxes")


def reduce_boxes(values: NDArray[Any], ufunc: np.ufunc, box: Shape3) -> NDArray[Any]:
    """`ufunc` over the values [a, b, c] of each box: one entry per box."""
    for axis in sorted(range(3), key=lambda axis: -box[axis]):
        if box[axis] >= values.shape[axis]:
            values = ufunc.reduce(values, axis=axis, keepdims=True)
        elif box[axis] > 1:
            values = _reduce_pieces(values, ufunc, box[axis], axis)
    return values


def _reduce_pieces(values: NDArray[Any], ufunc: np.ufunc, size: int, axis: int) -> NDArray[Any]:
    """`ufunc` over pieces of `size` along `axis`: long contiguous ones by reduceat, else slices."""
    extent = values.shape[axis]
    if axis == 2 or (size > 16 and axis == 1):
        return ufunc.reduceat(values, np.arange(0, extent, size), axis=axis)
    parts = []
    for start, stop, step in (
        (0, extent - extent % size, size),
        (extent - extent % size, extent, 0),
    ):
        if start < stop:
            part = values[start:stop] if axis == 0 else values[:, start:stop]
            step = step or stop - start
            if axis == 0:
                parts.append(ufunc.reduce(part.reshape(-1, step, *part.shape[1:]), axis=1))
                continue
            total = part[:, ::step].copy()
            for j in range(1, step):
                ufunc(total, part[:, j::step], out=total)
            parts.append(total)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def lengths(extent: int, size: int) -> NDArray[np.int64]:
    """int64: extents of the pieces of `size` that make up `extent`; the last may be smaller."""
    return np.minimum(size, extent - np.arange(0, extent, size, dtype=np.int64))


def box_sizes(grid: Boxes) -> NDArray[np.int64]:
    """int64, one entry per box: how many weights it has."""
    a, b, c = (lengths(extent, size) for extent, size in zip(grid.view, grid.box, strict=True))
    return a[:, None, None] * b[:, None] * c


def spread_boxes(keep: Bools, grid: Boxes) -> Bools:
    """bool[view] from one entry per box."""
    for axis in range(3):
        if grid.box[axis] > 1:
            keep = np.repeat(keep, lengths(grid.view[axis], grid.box[axis]), axis=axis)
    return keep


def energy(weights: NDArray[Any]) -> NDArray[Any]:
    """Squares of the weights, scaled by a power of two so that they neither overflow nor vanish."""
    dtype = np.float64 if weights.dtype == np.float64 else np.float32
    if weights.size == 0:
        return np.zeros(weights.shape, dtype)
    biggest = max(float(weights.max()), -float(weights.min()))
    exponent = int(np.frexp(biggest)[1])
    square: NDArray[Any] = np.ldexp(weights.astype(dtype, copy=False), -exponent)
    np.multiply(square, square, out=square)
    return square


def slabs(rows: int, row_size: int, step: int = 1) -> Iterator[slice]:
    """Slices of consecutive rows, a multiple of `step` each, of about 4 million values: bounds
    temporaries.
    """
    count = max(1, (1 << 22) // max(row_size * step, 1)) * step
    for start in range(0, rows, count):
        yield slice(start, min(start + count, rows))
