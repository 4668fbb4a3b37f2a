"""Gradual magnitude pruning: sparsity rises as a cubic, and with regrowth what was pruned may come back.

Sources: Zhu and Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, section 3; for regrowth the
straight-through estimator of Lin et al., "Dynamic Model Pruning with Feedback", ICLR 2020, arXiv:2006.07253: gradients
are taken at the masked weights and applied to dense ones. We keep the dense ones aside and move them as the optimiser
moved the masked ones, so that the network itself needs no other layers.
"""

from typing import final

import torch
from torch import Tensor

from prunus.training.methods.method import Bools, Work
from prunus.training.shards import like, whole


@final
class Gradual:
    """Masks are made anew at evenly spaced steps; the last ones, at the end, meet the goals."""

    def __init__(self, work: Work) -> None:
        self._work, self._settings = work, work.recipe.gradual
        self._n_updates = max(round(self._settings.updates * work.epochs), 1)
        self._made = 0
        self._dense: dict[str, Tensor] = {}

    def begin(self) -> None:
        """The masks of the starting sparsity."""
        if self._settings.start > 0:
            self._update(0.0)

    def penalty(self) -> float:
        """None."""
        return 0.0

    @torch.no_grad()
    def step(self, n: int) -> None:
        """Make new masks where it is time, out of the dense weights where there are some."""
        self._move_dense()
        due = self._work.due(n, self._n_updates)
        if due > self._made and not self._work.scores.wants_more:
            self._made = due
            self._update(1 - (1 - due / self._n_updates) ** 3)

    def settle(self) -> dict[str, Bools]:
        """The masks in force, when they meet the goals; else those that do."""
        if self._made < self._n_updates:
            self._made = self._n_updates
            self._update(1.0)
        self._dense = {}
        arrays = self._work.masks.arrays()
        return {goal.name: arrays[goal.name] for goal in self._work.goals}

    def state(self) -> dict[str, Tensor]:
        """Updates made, and the dense weights."""
        return {"": torch.tensor(self._made), **{name: whole(tensor) for name, tensor in self._dense.items()}}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._made = int(state[""])
        weights = {goal.name: goal.layer.weight.detach() for goal in self._work.goals}
        self._dense = {name: like(tensor, weights[name]) for name, tensor in state.items() if name}

    def _move_dense(self) -> None:
        """Dense weights follow the step: masked ones were `dense * mask` before it, and have moved on since."""
        for goal in self._work.goals:
            if goal.name in self._dense:
                weight = goal.layer.weight.detach()
                dense = self._dense[goal.name] = self._dense[goal.name].to(weight)
                dense.add_(weight - dense * self._work.masks.tensor(goal.name))

    @torch.no_grad()
    def _update(self, share: float) -> None:
        for goal in self._work.goals:
            if goal.name in self._dense:
                goal.layer.weight.copy_(self._dense[goal.name])
        masks = self._work.rank(share, self._settings.start)
        if self._settings.regrowth and share < 1:
            self._dense = {goal.name: goal.layer.weight.detach().clone() for goal in self._work.goals}
        self._work.masks.set(masks)
