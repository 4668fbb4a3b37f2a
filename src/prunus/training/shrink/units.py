"""Units: the single channels that layers make, and which of them live or die together.

A unit is a number. Tensors carry arrays of them, int64 with as many dimensions as the tensor has, of size 1 along a
dimension where all positions are alike: a feature map of 64 channels has [1, 64, 1, 1]. WHOLE marks what always stays.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
WHOLE = -1


@final
class Units:
    """A union of sets of units; each set may be pinned, that is stay whole, for a reason."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def new(self, n: int) -> Ids:
        """int64[n]: units that nothing is known about."""
        start = len(self._parents)
        self._parents.extend(range(start, start + n))
        return np.arange(start, start + n)

    def unite(self, a: Ids, b: Ids, reason: str) -> None:
        """Units at the same positions live or die together; `reason` is noted for those that meet WHOLE."""
        a, b = np.broadcast_arrays(a, b)
        pairs = np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0)
        for left, right in pairs.tolist():
            if left == WHOLE or right == WHOLE:
                self._pin(max(left, right), reason)
            else:
                self._join(left, right)

    def pin(self, ids: Ids, reason: str) -> None:
        """These stay. The first reason counts."""
        for unit in np.unique(ids).tolist():
            self._pin(unit, reason)

    def root(self, unit: int) -> int:
        """The unit that stands for the set which `unit` is in."""
        while self._parents[unit] != unit:
            self._parents[unit] = unit = self._parents[self._parents[unit]]
        return unit

    def reason(self, unit: int) -> str:
        """Why a unit stays whole; "" where it may go."""
        return self._reasons.get(self.root(unit), "")

    def _pin(self, unit: int, reason: str) -> None:
        if unit != WHOLE:
            self._reasons.setdefault(self.root(unit), reason)

    def _join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        if a != b:
            self._parents[b] = a
            reason = self._reasons.pop(b, "")
            if reason:
                self._reasons.setdefault(a, reason)


def compress(ids: Ids) -> Ids:
    """Size 1 along each dimension in which all positions are alike."""
    for dim in range(ids.ndim):
        first = ids.take([0], dim)
        if ids.shape[dim] > 1 and (ids == first).all():
            ids = first
    return ids


def varying(ids: Ids) -> list[int]:
    """The dimensions along which positions differ."""
    return [dim for dim, extent in enumerate(ids.shape) if extent > 1]
