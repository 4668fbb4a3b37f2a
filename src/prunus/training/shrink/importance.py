"""What a group is worth: the mean of squares of its filters, over all layers that it is in.

Each layer counts relative to its own mean, so that coupled layers of different scales have the same say. Source: Fang
et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900, section 3.3, which sums groups'
weights alike; ours takes filters only, or channels only, as the recipe says.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.training.shrink.groups import Groups, Key
from prunus.training.shrink.units import WHOLE

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def importance(groups: Groups, scores: Mapping[str, NDArray[Any]], keys: Iterable[Key] | None = None) -> Floats:
    """float64[groups.n]: 1 is the mean of a layer. scores: like weights, by name. keys: dimensions of weights to go by:
    filters, if it isn't said; groups in none of them are worth 0."""
    total, seen = np.zeros(groups.n), np.zeros(groups.n)
    for name, dim in groups.filters if keys is None else keys:
        ids = groups.ties.get((name, dim))
        if ids is None or name not in scores:
            continue
        array = np.moveaxis(scores[name], dim, 0).astype(np.float64)
        squares = np.square(array.reshape(len(ids), -1)).mean(1)
        squares /= squares.mean() or 1.0
        inside = ids != WHOLE
        np.add.at(total, ids[inside], squares[inside])
        np.add.at(seen, ids[inside], 1)
    return total / np.maximum(seen, 1)


def best(groups: Groups, worth: Floats, widths: NDArray[np.int64]) -> Bools:
    """bool[groups.n]: the `widths[b]` groups of most worth in each bundle; ties go to the lower number."""
    keep = np.ones(groups.n, bool)
    for members, width in zip(groups.bundles, widths.tolist(), strict=True):
        order = np.argsort(-worth[members], kind="stable")
        keep[members[order[width:]]] = False
    return keep
