"""Norms of the groups that live or die together under a scheme, differentiable.

bcr has two kinds of groups, rows and columns of each block; pattern's are whole kernels, by connectivity.
"""

import torch
from torch import Tensor, nn

from prunus.sparsity.boxes import Boxes, boxes
from prunus.sparsity.scheme import Scheme
from prunus.sparsity.stacked import n_matrices


def grids(shape: tuple[int, ...], scheme: Scheme, n_stacked: int = 1) -> tuple[Boxes, ...]:
    """The grids of groups of weights [o, i, ...] of `shape`; each covers all weights, or one of several matrices in a
    stack, where blocks would straddle them."""
    shape = (shape[0] // n_matrices(shape[0], n_stacked, scheme), *shape[1:])
    if scheme.name == "bcr":
        return tuple(boxes(shape, Scheme(name, scheme.block)) for name in ("block-row", "block-column"))
    if scheme.name == "pattern":
        return (boxes(shape, Scheme("punched", (1, 1))),) if len(shape) < 3 else (_kernels(shape),)
    return (boxes(shape, scheme),)


def _kernels(shape: tuple[int, ...]) -> Boxes:
    positions = 1
    for extent in shape[2:]:
        positions *= extent
    return Boxes((shape[0], shape[1], positions), (1, 1, positions))


def sums(values: Tensor, grid: Boxes) -> Tensor:
    """float[boxes along each axis of grid.view]: the sum of the values in each; those of a stack one after another."""
    return _reduce(values, grid)


def sizes(weight: Tensor, grid: Boxes) -> Tensor:
    """Weights in each group, as floats; smaller at the edges."""
    return _reduce(torch.ones_like(weight), grid)


def _reduce(values: Tensor, grid: Boxes) -> Tensor:
    """Sums over the boxes of a grid."""
    parts = values.reshape(-1, *grid.view)
    if len(parts) > 1:
        return torch.cat([_reduce(part, grid) for part in parts])
    values = parts[0]
    if grid.box == (1, 1, 1):
        return values
    missing = [-extent % size for extent, size in zip(grid.view, grid.box, strict=True)]
    if any(missing):
        values = nn.functional.pad(values, [n for extra in reversed(missing) for n in (0, extra)])
    (a, b, c), (x, y, z) = values.shape, grid.box
    return values.reshape(a // x, x, b // y, y, c // z, z).sum((1, 3, 5))
