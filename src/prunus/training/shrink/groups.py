"""Groups: channels of all layers that live or die together, and bundles: groups that the same layers have alike.

What is removed are whole groups: rows and columns of weights, biases, scales and statistics, as the ties say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.training.shrink.units import WHOLE, Ids
from prunus.training.shrink.walk import Call, Walk

Bools = NDArray[np.bool_]
Key = tuple[str, int]


@final
@dataclass(frozen=True, eq=False)
class Groups:
    """What can be removed from a network.

    n: groups, counted from 0. ties: the group of each position along a dimension of a parameter or buffer, WHOLE where
    it stays. shapes: of those tensors. widths: like ties, of grouped convolutions' inputs, by weight. calls: uses of
    weights. bundles: groups that are alike in how often each dimension has them; they are ranked against each other.
    reasons: why positions stay whole, by weight's name, in the order of the network.
    """

    n: int
    ties: Mapping[Key, Ids]
    shapes: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, Ids]
    calls: tuple[Call, ...]
    bundles: tuple[Ids, ...]
    reasons: Mapping[str, str]

    def masks(self, keep: Bools) -> dict[str, Bools]:
        """bool like each tied tensor, True where it stays. keep: bool[n]."""
        masks: dict[str, Bools] = {}
        for (name, dim), ids in self.ties.items():
            mask = masks.setdefault(name, np.ones(self.shapes[name], bool))
            mask &= kept(ids, keep).reshape([-1 if d == dim else 1 for d in range(mask.ndim)])
        return masks

    def macs(self, keep: Bools | None = None) -> int:
        """Multiply-adds of the convolutions, linear and recurrent layers on the example inputs."""
        keep = np.ones(self.n, bool) if keep is None else keep
        total = 0
        for call in self.calls:
            size = call.positions
            for dim, extent in enumerate(self.shapes[call.weight]):
                ids = self.ties.get((call.weight, dim))
                size *= extent if ids is None else int(kept(ids, keep).sum())
            total += size
        return total

    @cached_property
    def filters(self) -> tuple[Key, ...]:
        """The dimensions of weights along which their filters lie."""
        return tuple(dict.fromkeys((call.weight, call.filters) for call in self.calls))

    @cached_property
    def counts(self) -> dict[Key, NDArray[np.int64]]:
        """int64[n] for each tie: how many positions a group has there."""
        return {
            key: np.bincount(ids[ids != WHOLE], minlength=self.n).astype(np.int64) for key, ids in self.ties.items()
        }


def kept(ids: Ids, keep: Bools) -> Bools:
    """bool like `ids`: which positions stay."""
    return np.append(keep, True)[ids]  # WHOLE is the last


def gather(walk: Walk) -> tuple[Groups, Callable[[Ids], Ids]]:
    """Groups in the order in which the network makes them; and a function from units to theirs, WHOLE for others."""
    numbers: dict[int, int] = {}

    def number(ids: Ids) -> Ids:
        found = np.full(ids.shape, WHOLE)
        for at, unit in enumerate(ids.tolist()):
            if unit != WHOLE and not walk.units.reason(unit):
                found[at] = numbers.setdefault(walk.units.root(unit), len(numbers))
        return found

    ties = {key: number(ids) for key, ids in walk.ties.items()}
    reasons: dict[str, str] = {}
    for (name, _), ids in walk.ties.items():
        for unit in ids.tolist():
            if unit != WHOLE and (reason := walk.units.reason(unit)):
                reasons.setdefault(name, reason)
                break
    names = {name for name, _ in ties} | {call.weight for call in walk.calls}
    shapes = {name: tuple(walk.tensors[name].shape) for name in names}
    widths = {name: number(ids) for name, ids in walk.widths.items()}
    found = Groups(len(numbers), ties, shapes, widths, tuple(walk.calls), (), reasons)

    def group_of(ids: Ids) -> Ids:
        at = (WHOLE if unit == WHOLE else numbers.get(walk.units.root(unit), WHOLE) for unit in ids.tolist())
        return np.fromiter(at, np.int64, len(ids))

    return Groups(found.n, ties, shapes, widths, found.calls, _bundles(found), reasons), group_of


def _bundles(groups: Groups) -> tuple[Ids, ...]:
    if groups.n == 0:
        return ()
    table = np.stack(list(groups.counts.values()), 1)
    _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return tuple(np.flatnonzero(which.ravel() == bundle) for bundle in order)
