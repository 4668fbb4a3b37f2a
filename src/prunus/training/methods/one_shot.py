"""One-shot: the weights of least score go at once, and what is left learns on.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
arXiv:1506.02626, section 3.
"""

from typing import final

from torch import Tensor

from prunus.training.methods.method import Bools, Work


@final
class OneShot:
    """At the start, or as soon as there are gradients enough where the criterion needs some."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._done = False

    def begin(self) -> None:
        """Prune, if that is possible yet."""
        if not self._work.scores.wants_more:
            self._prune()

    def penalty(self) -> float:
        """None."""
        return 0.0

    def step(self, n: int) -> None:
        """Prune if that wasn't possible before."""
        if not self._done and not self._work.scores.wants_more:
            self._prune()

    def settle(self) -> dict[str, Bools]:
        """The masks that were made."""
        if not self._done:
            self._prune()
        arrays = self._work.masks.arrays()
        return {goal.name: arrays[goal.name] for goal in self._work.goals}

    def state(self) -> dict[str, Tensor]:
        """Nothing: the masks say it all."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Masks that are there aren't made anew."""
        self._done = all(goal.name in self._work.masks for goal in self._work.goals)

    def _prune(self) -> None:
        self._work.masks.set(self._work.rank())
        self._done = True
