"""Reweighted group lasso: groups that are small are pushed harder, until they are as good as gone.

The penalty is strength / steps * sum over layers and groups of s^2 * size * alpha * norm, with the root mean square r
of a group's weights as its norm, s that of the layer's, and alpha = 1 / (r + epsilon s); or r^2 / 2 with alpha = 1 /
(r^2 + epsilon^2 s^2). r and s in alpha and s^2 are those of the last refresh. Groups below a threshold go at the end:
by rank where a sparsity is given, else by value, so that rates per layer emerge. Source: Ma et al., "BLK-REW",
arXiv:2001.08357; Candes et al., 2008, arXiv:0711.1612, for reweighting.

Ours differs in scale. s makes one strength suit all layers; size pushes weights of large and small groups alike. An
average group feels a weight decay of strength / steps, one a tenth as large about fifty times that: over the period,
SGD of learning rate 0.05 and momentum 0.9, whose steps add up tenfold, shrinks the former by exp(-0.5 strength),
however long the period is. A fixed lambda such as the papers' does nothing in a few epochs. Their epsilon of a
thousandth lets SGD overshoot zero by more than the group was: the pull on the smallest groups is strength / epsilon /
steps.
"""

import math
from typing import final

import numpy as np
import torch
from torch import Tensor

from prunus.sparsity.boxes import Boxes, spread_boxes
from prunus.training.goals import Goal
from prunus.training.groups import grids, sizes, sums
from prunus.training.methods.method import Bools, Work
from prunus.training.scores import array_of
from prunus.training.shards import whole

_TINY = 1e-20  # under the root, whose slope at 0 is infinite


@final
class Reweighted:
    """alpha is refreshed at evenly spaced steps, the first time at the start."""

    def __init__(self, work: Work) -> None:
        self._work, self._settings = work, work.recipe.reweighted
        self._made = 0
        self._pull: dict[str, Tensor] = {}  # what a group's norm is multiplied with
        self._grids = {goal.name: _grids(goal) for goal in work.goals}

    def begin(self) -> None:
        """The first alpha."""
        self._refresh()

    def penalty(self) -> Tensor | float:
        """The sum of all groups' norms, weighted."""
        total: Tensor | float = 0.0
        for goal in self._work.goals:
            squares = whole(goal.layer.weight).square()
            for index, grid in enumerate(self._grids[goal.name]):
                of_groups = sums(squares, grid)
                pull = self._pull_of(f"{goal.name}:{index}", of_groups)
                norms = of_groups if self._settings.norm == "squared" else (of_groups + _TINY).sqrt()
                total = total + torch.dot(pull.reshape(-1), norms.reshape(-1))
        return total

    def step(self, n: int) -> None:
        """alpha, where it is time."""
        due = self._work.due(n, self._settings.refreshes)
        if self._made < due < self._settings.refreshes:
            self._made = due
            self._refresh()

    def settle(self) -> dict[str, Bools]:
        """By rank, or for goals without a sparsity by value."""
        masks = self._work.rank()
        if self._work.coupling is not None:
            return masks
        return masks | {goal.name: self._emerged(goal) for goal in self._work.goals if goal.sparsity is None}

    def state(self) -> dict[str, Tensor]:
        """Refreshes made, and what the norms are multiplied with."""
        return {"": torch.tensor(self._made), **self._pull}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._made = int(state[""])
        self._pull = {name: pull.clone() for name, pull in state.items() if name}

    def _pull_of(self, key: str, like: Tensor) -> Tensor:
        pull = self._pull[key]
        if pull.device != like.device or pull.dtype != like.dtype:
            pull = self._pull[key] = pull.to(like)
        return pull

    @torch.no_grad()
    def _refresh(self) -> None:
        strength = self._settings.strength / max(self._work.n_steps, 1)
        for goal in self._work.goals:
            weight = whole(goal.layer.weight.detach())
            square = float(weight.square().mean())
            scale = square**0.5 or 1.0
            for index, grid in enumerate(self._grids[goal.name]):
                size = sizes(weight, grid)
                norm = (sums(weight.square(), grid) / size).sqrt()
                if self._settings.norm == "squared":  # size * norm^2 is the sum of squares
                    alpha = 0.5 / (norm.square() + (self._settings.epsilon * scale) ** 2)
                else:  # and size * norm the root of size * sum
                    alpha = size.sqrt() / (norm + self._settings.epsilon * scale)
                self._pull[f"{goal.name}:{index}"] = strength * square * alpha

    @torch.no_grad()
    def _emerged(self, goal: Goal) -> Bools:
        """What stays when the groups below the threshold go."""
        weight = whole(goal.layer.weight.detach())
        least = self._settings.threshold * float(weight.square().mean().sqrt())
        mask = goal.mask(array_of(weight), 0.0)
        for grid in self._grids[goal.name]:
            norm = (sums(weight.square(), grid) / sizes(weight, grid)).sqrt()
            mask = mask & _spread(norm >= least, grid, mask.size).reshape(mask.shape)
        return mask


def _grids(goal: Goal) -> tuple[Boxes, ...]:
    return grids(tuple(goal.layer.weight.shape), goal.scheme, goal.layer.n_gates)


def _spread(stays: Tensor, grid: Boxes, n_weights: int) -> Bools:
    """bool[n, *grid.view] from one per group, of n matrices in a stack."""
    parts = np.split(stays.cpu().numpy(), n_weights // math.prod(grid.view))
    return np.stack([spread_boxes(part, grid) for part in parts])
