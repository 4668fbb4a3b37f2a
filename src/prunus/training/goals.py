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

from prunus.sparsity.scheme import Scheme
from prunus.sparsity.schemes import SCHEMES
from prunus.sparsity.stacked import project_stacked
from prunus.training.layers import Layer, Target

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Goal:
    """Zeros of `scheme` at `sparsity` (None: the method decides) in what `base` keeps of a layer (None: all).
    start: the sparsity that it has already."""

    layer: Layer
    scheme: Scheme
    sparsity: float | None
    base: Bools | None = None
    start: float = 0.0

    @property
    def name(self) -> str:
        return self.layer.parameter

    def mask(self, score: NDArray[Any], sparsity: float) -> Bools:
        """bool like `score`: what stays at `sparsity`, of all weights, `base` included.

        score: float, as weights: groups are ranked by its root mean square. Below the least sparsity that n:m and
        pattern can have, they keep more than their n or their few of 9: 2:4 comes by way of 3:4.
        """
        base = np.ones(score.shape, bool) if self.base is None else self.base
        share = 1 - (1 - sparsity) / self.densest if base.any() else 0.0
        if share <= 0:
            return base
        scheme = _on_the_way(self.scheme, 1 - share)
        if scheme is None:
            return base
        fixed = SCHEMES[scheme.name].fixed
        known = np.where(base, score, score.dtype.type(0))
        kept: Bools = base & project_stacked(known, scheme, None if fixed else min(share, 1.0), self.layer.n_gates)
        return kept

    @property
    def densest(self) -> float:
        """The density of `base`: more can't stay."""
        return 1.0 if self.base is None or not self.base.size else float(self.base.mean())


def _on_the_way(scheme: Scheme, density: float) -> Scheme | None:
    """The scheme of its kind that can have `density`; None where it would be dense."""
    if scheme.name == "n:m":
        n, m = scheme.block
        n = max(n, int(np.ceil(density * m - 1e-9)))
        return Scheme("n:m", (n, m)) if n < m else None
    if scheme.name == "pattern":
        n = max(scheme.block[0], int(np.ceil(density * 9 - 1e-9)))
        return Scheme("pattern", (n,)) if n < 9 else None
    return scheme


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
    return tuple(_onwards(target, masks.get(target.layer.parameter)) for target in targets)


def _onwards(target: Target, mask: Bools | None) -> Goal:
    start = 0.0 if mask is None or not mask.size else 1 - float(mask.mean())
    if target.scheme.name == "bcr":
        return Goal(target.layer, Scheme("block-row", target.scheme.block), target.sparsity, mask, start)
    return Goal(target.layer, target.scheme, target.sparsity, start=start)
