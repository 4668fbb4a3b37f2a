"""What a method is: it has some steps to bring a set of goals about, and says at their end which masks to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunus.training.goals import Goal
from prunus.training.masks import Masks
from prunus.training.recipe import Recipe
from prunus.training.scores import Scores

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Work:
    """One period of sparsifying: what to reach, in how many steps, and with what.

    epochs: as `n_steps`, for schedules that count in those.
    """

    recipe: Recipe
    goals: Sequence[Goal]
    n_steps: int
    epochs: float
    masks: Masks
    scores: Scores

    def due(self, step: int, n_events: int) -> int:
        """How many of `n_events`, spread evenly, the last one at the end, are due after `step` steps."""
        return n_events if step >= self.n_steps else step * n_events // max(self.n_steps, 1)


class Method(Protocol):
    """Made at the start of a period. `step` comes after each of the optimiser's, counted from 1; `settle` once, at the
    end or earlier, and returns the masks that meet the goals."""

    def penalty(self) -> Tensor | float: ...
    def step(self, n: int) -> None: ...
    def settle(self) -> dict[str, Bools]: ...
    def state(self) -> dict[str, Tensor]: ...
    def load(self, state: dict[str, Tensor]) -> None: ...
