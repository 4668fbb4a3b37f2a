"""Pruning inside Lightning: `Trainer(..., callbacks=[PruneCallback(recipe)])`.

The loop's length is the Trainer's: have as many epochs there as the recipe has.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from torch import Tensor

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    from pytorch_lightning import Callback

from prunus.errors import TrainingError
from prunus.training.callbacks.follow import Follower
from prunus.training.recipe import Recipe


@final
class PruneCallback(Callback):  # type: ignore[misc]  # where it isn't installed it has no types
    """Recipe, output and example_inputs as `Follower`, which is `follower`. Modules that optimise by hand, or with
    several optimisers, call the Pruner themselves."""

    def __init__(
        self,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        output: str | Path | None = None,
        example_inputs: Tensor | tuple[Tensor, ...] | None = None,
    ) -> None:
        super().__init__()
        self.follower = Follower(recipe, output, example_inputs)
        self._n_steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, or go on: Lightning has put weights and `load_state_dict` in place."""
        self._n_steps, n_batches = trainer.global_step, trainer.num_training_batches
        if not math.isfinite(n_batches):
            raise TrainingError("the loader has no length, expected limit_train_batches of the Trainer to give one")
        self.follower.begin(pl_module, -(-int(n_batches) // trainer.accumulate_grad_batches))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are whole."""
        self.follower.before_step()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The step is made, if this batch was the last that it waited for; gradients go with the next batch."""
        if trainer.global_step > self._n_steps:
            self._n_steps = trainer.global_step
            self.follower.after_step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Exact zeros."""
        self.follower.end()

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return dict(self.follower.state())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoints."""
        self.follower.load(state_dict)
