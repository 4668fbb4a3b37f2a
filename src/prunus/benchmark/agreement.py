"""Do two engines say the same? Asked before any timing: a fast wrong answer is no answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def difference(own: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> float:
    """The largest difference of any output over that output's largest value in `other`.

    Infinite where number or shapes of outputs differ, or one has a NaN or infinity that the other
    lacks; 0 for equal outputs, empty and all-zero ones included.
    """
    if len(own) != len(other):
        return float("inf")
    return max((_difference(a, b) for a, b in zip(own, other, strict=True)), default=0.0)


def _difference(own: NDArray[Any], other: NDArray[Any]) -> float:
    if own.shape != other.shape:
        return float("inf")
    a, b = own.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    if not a.size or np.array_equal(a, b):
        return 0.0
    if not np.isfinite(a).all():
        return float("inf")
    scale = float(np.abs(b).max())
    return float(np.abs(a - b).max()) / scale if scale else float("inf")
