"""What a method is: it has some steps to bring a set of goals about, and says at their end which masks to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunus.training.goals import Goal
from prunus.training.masks import Masks
from prunus.training.methods.ranking import rank
from prunus.training.recipe import Recipe
from prunus.training.scores import Scores
from prunus.training.shrink.coupling import Coupling

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Work:
    """One period of sparsifying: what to reach, in how many steps, and with what.

    epochs: as `n_steps`, for schedules that count in those. coupling: where filters and channels go for real.
    """

    recipe: Recipe
    goals: Sequence[Goal]
    n_steps: int
    epochs: float
    masks: Masks
    scores: Scores
    coupling: Coupling | None = None

    def rank(self, share: float = 1.0, start: float = 0.0) -> dict[str, Bools]:
        """The masks of all goals, `share` of the way from `start`; with coupling, of all that is coupled as well."""
        if self.coupling is not None:
            return self.coupling.rank(self.scores, share, start)
        return rank(self.goals, self.scores, self.recipe.scope, share, start)

    def project(self, arrays: Mapping[str, NDArray[Any]], sparsity: Mapping[str, float]) -> dict[str, Bools]:
        """The masks of all goals by other arrays than the weights; as `rank`."""
        if self.coupling is not None:
            return self.coupling.choose(arrays)
        return {goal.name: goal.mask(arrays[goal.name], sparsity[goal.name]) for goal in self.goals}

    def due(self, step: int, n_events: int) -> int:
        """How many of `n_events`, spread evenly, the last one at the end, are due after `step` steps."""
        return n_events if step >= self.n_steps else step * n_events // max(self.n_steps, 1)


class Method(Protocol):
    """Made at the start of a period, or where one is resumed; then either `begin` or `load` is called. `step` comes
    after each of the optimiser's, counted from 1; `settle` once, at the end or earlier, and returns the masks that meet
    the goals."""

    def begin(self) -> None: ...
    def penalty(self) -> Tensor | float: ...
    def step(self, n: int) -> None: ...
    def settle(self) -> dict[str, Bools]: ...
    def state(self) -> dict[str, Tensor]: ...
    def load(self, state: dict[str, Tensor]) -> None: ...
