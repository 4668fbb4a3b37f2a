"""Goals: which zeros each weight is to have at the end of a period of training, and the masks that come of them.

A recipe whose bcr blocks lose columns first and rows later has two periods; all others have one. In the first, every
layer goes half of its way, by ratio: density sqrt(d), and bcr takes columns only. In the second, bcr takes rows
among what the columns left.

Source for the two stages: the released training logs of RTMobile's GRU models (columns per strip, then rows per chunk).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.project import project
from prunus.sparsity.scheme import Scheme
from prunus.sparsity.schemes import SCHEMES
from prunus.training.layers import Layer, Target

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Goal:
    """Zeros of `scheme` at `sparsity` (None: the method decides) in what `base` keeps of a layer (None: all)."""

    layer: Layer
    scheme: Scheme
    sparsity: float | None
    base: Bools | None = None

    @property
    def name(self) -> str:
        return self.layer.parameter

    def mask(self, score: NDArray[Any], sparsity: float) -> Bools:
        """bool like `score`: what stays at `sparsity`, of all weights, `base` included.

        score: float, as weights: groups are ranked by its root mean square. Below the least sparsity that the scheme
        can have, nothing beyond `base` goes.
        """
        base = np.ones(score.shape, bool) if self.base is None else self.base
        own = 1 - SCHEMES[self.scheme.name].densest(self.scheme)
        left = np.count_nonzero(base) / base.size if base.size else 1.0
        share = 1 - (1 - sparsity) / left if left else 0.0
        if share < own - 1e-9:
            return base
        if share <= 0:
            return base
        kept: Bools = base & project(np.where(base, score, score.dtype.type(0)), self.scheme, min(share, 1.0))
        return kept


def first_period(targets: Sequence[Target], by_columns: bool) -> tuple[Goal, ...]:
    """The only period's goals, or those of the first of two: see above."""
    if not by_columns:
        return tuple(Goal(target.layer, target.scheme, target.sparsity) for target in targets)
    return tuple(_halfway(target) for target in targets)


def _halfway(target: Target) -> Goal:
    family = SCHEMES[target.scheme.name]
    sparsity = None if target.sparsity is None else 1 - float(np.sqrt(1 - target.sparsity))
    if target.scheme.name == "bcr":
        return Goal(target.layer, Scheme("block-column", target.scheme.block), sparsity)
    if sparsity is not None and (family.fixed or sparsity < 1 - family.densest(target.scheme)):
        sparsity = target.sparsity
    return Goal(target.layer, target.scheme, sparsity)


def second_period(targets: Sequence[Target], masks: dict[str, Bools]) -> tuple[Goal, ...]:
    """Goals of the second period, given the masks that the first one ended with."""
    return tuple(
        Goal(target.layer, Scheme("block-row", target.scheme.block), target.sparsity, masks[target.layer.parameter])
        if target.scheme.name == "bcr"
        else Goal(target.layer, target.scheme, target.sparsity)
        for target in targets
    )
