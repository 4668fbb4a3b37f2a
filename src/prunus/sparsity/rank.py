"""Choosing by rank: the k largest, ties to the lower index, so that counts are exact everywhere.

Everything here orders by (score descending, index ascending). No thresholds: equal inputs give
equal masks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def top(score: Floats, count: int) -> Bools:
    """bool like `score` (any shape): the `count` largest of all; of equals, the earlier."""
    count = min(max(count, 0), score.size)
    if count in (0, score.size):
        return np.full(score.shape, count > 0)
    flat = score.ravel()
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    keep: Bools = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    keep[ties[: count - int(np.count_nonzero(keep))]] = True
    return keep.reshape(score.shape)


def top_weight(score: Floats, size: NDArray[np.int64], kept: float, at_least: int = 0) -> Bools:
    """bool like `score`: as many of the largest as bring the sum of their `size` nearest to `kept`.

    size: weights in each group, as `score` or broadcastable to it. At least `at_least` are kept.
    """
    if score.size == 0:
        return np.zeros(score.shape, bool)
    low, high = int(size.min()), int(size.max())
    if low == high:
        return top(score, max(int(np.floor(kept / low + 0.5)), at_least))
    order = np.argsort(-score, axis=None, kind="stable")
    sums = np.cumsum(np.broadcast_to(size, score.shape).ravel()[order])
    count = int(np.abs(np.concatenate([[0], sums]) - kept).argmin())
    keep = np.zeros(score.size, bool)
    keep[order[: max(count, at_least)]] = True
    return keep.reshape(score.shape)


def top_rows(score: Floats, count: int) -> Bools:
    """bool[n, k]: the `count` largest of each row of `score` [n, k]; of equals, the earlier."""
    keep = np.zeros(score.shape, bool)
    if count >= score.shape[1]:
        keep[:] = True
    elif count > 0:
        best = np.argsort(-score, axis=1, kind="stable")[:, :count]
        np.put_along_axis(keep, best, True, axis=1)
    return keep


def ranks(score: Floats) -> NDArray[np.int32]:
    """int32 like `score`: place of each along the last axis, 0 the largest; of equals, the earlier
    first.
    """
    length = score.shape[-1]
    rank = np.zeros(score.shape, np.int32)
    if length <= 8:  # comparing pairs beats sorting many short rows
        for j in range(length):
            for k in range(length):
                if k != j:
                    before = np.greater_equal if k < j else np.greater
                    rank[..., j] += before(score[..., k], score[..., j])
        return rank
    order = np.argsort(-score, axis=-1, kind="stable")
    np.put_along_axis(rank, order, np.arange(length, dtype=np.int32), axis=-1)
    return rank
