"""Least squares over the weights that a mask keeps, exactly, filter by filter.

Filters that keep the same columns share one factorisation; others are factorised in batches, padded to the most columns
of a batch with rows and columns of the identity.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOM = 1 << 22  # numbers in a batch of matrices


def solve(h: Tensor, g: Tensor, mask: NDArray[np.bool_]) -> Tensor:
    """float64[o, k]: for each filter the w of least w h w - 2 g w among those that are zero where `mask` [o, k] is.

    h: float64[k, k], positive definite.
    """
    o, k = mask.shape
    solved = torch.zeros(o, k + 1, dtype=torch.float64)
    wide = torch.zeros(k + 1, k + 1, dtype=torch.float64)
    wide[:k, :k] = h
    right = torch.cat([g, torch.zeros(o, 1, dtype=torch.float64)], 1)
    supports, which = np.unique(np.packbits(mask, axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    kept = np.unpackbits(supports, axis=1, count=k).astype(bool)
    sizes = kept.sum(1)
    filters = [np.flatnonzero(which == index) for index in range(len(kept))] if len(kept) < o else None
    for chosen in _batches(sizes):
        most = int(sizes[chosen].max(initial=0))
        if not most:
            continue
        columns = torch.full((len(chosen), most), k)
        for row, index in enumerate(chosen):
            columns[row, : sizes[index]] = torch.from_numpy(np.flatnonzero(kept[index]))
        parts = wide[columns[:, :, None], columns[:, None, :]]
        parts.diagonal(dim1=1, dim2=2).add_((columns == k).double())
        factors = torch.linalg.cholesky(parts)
        if filters is None:
            rows = torch.from_numpy(np.argsort(which)[chosen])
            values = torch.cholesky_solve(right[rows[:, None], columns][:, :, None], factors)
            solved[rows[:, None], columns] = values[:, :, 0]
            continue
        for row, index in enumerate(chosen):
            rows = torch.from_numpy(filters[index])
            values = torch.cholesky_solve(right[rows][:, columns[row]].T, factors[row])
            solved[rows[:, None], columns[row]] = values.T
    return solved[:, :k]


def _batches(sizes: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Indices of supports, of similar size, as many as fit in ROOM."""
    ordered = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and (stop + 1 - start) * int(sizes[ordered[stop]]) ** 2 <= ROOM:
            stop += 1
        yield ordered[start:stop]
        start = stop
