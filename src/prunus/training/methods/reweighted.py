"""Reweighted group lasso: groups that are small are pushed harder, until they are as good as gone.

The penalty is strength * sum over layers and groups of size * alpha * norm, with the root mean square of a group's
weights as its norm (or its square) and alpha = 1 / (norm + epsilon) as of the last refresh. Groups below a threshold go
at the end: by rank where a sparsity is given, else by value, so that rates per layer emerge. Source: Ma et al.,
"BLK-REW", arXiv:2001.08357; Candes et al., 2008, arXiv:0711.1612, for reweighting. Ours differs in scale: norms are
relative to the layer's, and the penalty is times the mean square of its weights, so that one strength suits all layers;
a group counts by its size, so that weights of large and small groups are pushed alike.
"""

from typing import final

import torch
from torch import Tensor

from prunus.sparsity.boxes import Boxes
from prunus.training.goals import Goal
from prunus.training.groups import grids, sizes, sums_of_squares
from prunus.training.methods.method import Bools, Work
from prunus.training.scores import array_of
from prunus.training.shards import like, whole


@final
class Reweighted:
    """alpha is refreshed at evenly spaced steps, the first time at the start."""

    def __init__(self, work: Work) -> None:
        self._work, self._settings = work, work.recipe.reweighted
        self._made = 0
        self._alpha: dict[str, Tensor] = {}
        self._scale = {goal.name: float(whole(goal.layer.weight.detach()).square().mean()) for goal in work.goals}
        self._grids = {goal.name: grids(tuple(goal.layer.weight.shape), goal.scheme) for goal in work.goals}
        self._refresh()

    def penalty(self) -> Tensor | float:
        """The sum of all groups' norms, weighted."""
        total: Tensor | float = 0.0
        for goal in self._work.goals:
            weight = whole(goal.layer.weight)
            for index, grid in enumerate(self._grids[goal.name]):
                sums = sums_of_squares(weight, grid)
                alpha = self._alpha[f"{goal.name}:{index}"]
                if alpha.device != sums.device or alpha.dtype != sums.dtype:
                    alpha = self._alpha[f"{goal.name}:{index}"] = alpha.to(sums)
                if self._settings.norm == "squared":
                    total = total + (alpha * sums).sum() * self._scale[goal.name]
                else:
                    norms = (sums * sizes(weight.detach(), grid) + 1e-20).sqrt()
                    total = total + (alpha * norms).sum() * self._scale[goal.name]
        return total * self._settings.strength

    def step(self, n: int) -> None:
        """alpha, where it is time."""
        due = self._work.due(n, self._settings.refreshes)
        if self._made < due < self._settings.refreshes:
            self._made = due
            self._refresh()

    def settle(self) -> dict[str, Bools]:
        """By rank, or for goals without a sparsity by value."""
        masks = self._work.rank()
        for goal in self._work.goals:
            if goal.sparsity is None and self._work.coupling is None:
                masks[goal.name] = goal.mask(array_of(goal.layer.weight), self._emerged(goal))
        return masks

    def state(self) -> dict[str, Tensor]:
        """Refreshes made, the weights of all groups, and the layers' scales."""
        scales = {f"{name}:scale": torch.tensor(value, dtype=torch.float64) for name, value in self._scale.items()}
        return {"": torch.tensor(self._made), **self._alpha, **scales}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._made = int(state[""])
        self._scale = {name: float(state[f"{name}:scale"]) for name in self._scale}
        self._alpha = {key: state[key].clone() for key in self._alpha}

    @torch.no_grad()
    def _refresh(self) -> None:
        for goal in self._work.goals:
            weight = whole(goal.layer.weight.detach())
            for index, grid in enumerate(self._grids[goal.name]):
                norm = _norms(weight, grid)
                scale = float(weight.square().mean().sqrt()) or 1.0
                if self._settings.norm == "squared":
                    alpha = 1 / (norm.square() + (self._settings.epsilon * scale) ** 2)
                else:
                    alpha = 1 / (norm + self._settings.epsilon * scale)
                self._alpha[f"{goal.name}:{index}"] = like(alpha, alpha)

    @torch.no_grad()
    def _emerged(self, goal: Goal) -> float:
        """The sparsity that removing groups below the threshold gives."""
        weight = whole(goal.layer.weight.detach())
        scale = float(weight.square().mean().sqrt())
        density = 1.0
        for grid in self._grids[goal.name]:
            stays = _norms(weight, grid) > self._settings.threshold * scale
            density *= float(sizes(weight, grid)[stays].sum()) / max(weight.numel(), 1)
        return 1 - density


def _norms(weight: Tensor, grid: Boxes) -> Tensor:
    """The root mean square of each group."""
    return (sums_of_squares(weight, grid) / sizes(weight, grid)).sqrt()
