"""ADMM: weights are pulled towards their own projection, ever harder, until little is lost by projecting them.

Minimise f(W) with W in the set of the scheme: the optimiser takes steps on f(W) + rho/2 ||W - Z + U||^2, and now and
then Z = projection of W + U, U = U + W - Z. Sources: Zhang et al., "A Systematic DNN Weight Pruning Framework using
ADMM", ECCV 2018, arXiv:1804.03294, section 3; stages of rho, with Z and U begun anew in each, as in YOLObile's code;
the one-sided form as in RT3D's.
"""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.training.methods.method import Bools, Work
from prunus.training.methods.ranking import sparsities
from prunus.training.scores import array_of
from prunus.training.shards import agree, like, whole


@final
class Admm:
    """The sparsity of each goal is decided at the start, then Z and U follow the weights."""

    def __init__(self, work: Work) -> None:
        self._work, self._settings = work, work.recipe.admm
        self._n_updates = len(self._settings.rho) * self._settings.updates
        self._made = 0
        self._sparsity: dict[str, float] = {}
        self._u: dict[str, NDArray[Any]] = {}
        self._pull: dict[str, Tensor] = {}  # Z - U
        self._free: dict[str, Tensor] = {}  # one-sided: 1 where Z is zero

    def begin(self) -> None:
        """What each layer is to reach, and the first projection."""
        if self._work.coupling is not None:
            self._sparsity = {name: 1 - float(mask.mean()) for name, mask in self._work.rank().items()}
        else:
            weights = {goal.name: array_of(goal.layer.weight) for goal in self._work.goals}
            self._sparsity = sparsities(self._work.goals, weights, self._work.recipe.scope)
        self._project(restart=True)

    @property
    def rho(self) -> float:
        """Of the stage that is on."""
        return self._settings.rho[min(self._made // self._settings.updates, len(self._settings.rho) - 1)]

    def penalty(self) -> Tensor | float:
        """rho/2 ||W - Z + U||^2, of all goals."""
        total: Tensor | float = 0.0
        for goal in self._work.goals:
            weight = whole(goal.layer.weight)  # shards come and go within a step
            distance = weight - self._pull_of(goal.name, weight)
            if self._settings.one_sided:
                distance = distance * self._free[goal.name]
            total = total + distance.square().sum()
        return total * (self.rho / 2)

    @torch.no_grad()
    def step(self, n: int) -> None:
        """Z and U, where it is time."""
        due = min(self._work.due(n, self._n_updates), self._n_updates)
        if due > self._made:
            before = self._made // self._settings.updates
            self._made = due
            if due < self._n_updates:
                self._project(restart=due // self._settings.updates > before)

    def settle(self) -> dict[str, Bools]:
        """The support of the weights' projection."""
        weights = {goal.name: array_of(goal.layer.weight) for goal in self._work.goals}
        return self._work.project(weights, self._sparsity)

    def state(self) -> dict[str, Tensor]:
        """Updates made, sparsities, U and Z."""
        state = {"": torch.tensor(self._made)}
        for goal in self._work.goals:
            state[f"{goal.name}:u"] = torch.from_numpy(self._u[goal.name])
            state[f"{goal.name}:pull"] = whole(self._pull[goal.name]).clone()
            state[f"{goal.name}:free"] = whole(self._free[goal.name]).clone()
            state[f"{goal.name}:sparsity"] = torch.tensor(self._sparsity[goal.name], dtype=torch.float64)
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._made = int(state[""])
        for goal in self._work.goals:
            weight = whole(goal.layer.weight.detach())
            self._u[goal.name] = state[f"{goal.name}:u"].numpy().copy()
            self._pull[goal.name] = like(state[f"{goal.name}:pull"], weight)
            self._free[goal.name] = like(state[f"{goal.name}:free"], weight)
            self._sparsity[goal.name] = float(state[f"{goal.name}:sparsity"])

    def _pull_of(self, name: str, weight: Tensor) -> Tensor:
        pull = self._pull[name]
        if pull.device != weight.device or pull.dtype != weight.dtype:
            pull = self._pull[name] = pull.to(weight)
            self._free[name] = self._free[name].to(weight)
        return pull

    def _project(self, restart: bool) -> None:
        weights = {goal.name: array_of(goal.layer.weight) for goal in self._work.goals}
        if restart:
            self._u = {name: np.zeros_like(weight) for name, weight in weights.items()}
        sums = {name: weight + self._u[name] for name, weight in weights.items()}
        masks = agree(self._work.project(sums, self._sparsity))
        for goal in self._work.goals:
            name, weight = goal.name, whole(goal.layer.weight.detach())
            z = np.where(masks[name], sums[name], 0).astype(weights[name].dtype)
            if not restart:
                self._u[name] = sums[name] - z
            self._pull[name] = like(z - self._u[name], weight)
            self._free[name] = like(~masks[name], weight)
