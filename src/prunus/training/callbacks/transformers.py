"""Pruning inside the Trainer of transformers: `Trainer(..., callbacks=[PruneCallback(recipe)])`.

The loop's length is the Trainer's: have as many epochs there as the recipe has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import safetensors.torch
from torch import Tensor, nn
from transformers import TrainerCallback

from prunus.runtime.atomic import write_atomically
from prunus.training.callbacks.follow import Follower
from prunus.training.recipe import Recipe

STATE = "pruner.safetensors"  # in a checkpoint's folder


@final
class PruneCallback(TrainerCallback):  # type: ignore[misc]  # it has no types
    """Recipe, output and example_inputs as `Follower`, which is `follower`. Needs a transformers that
    calls `on_optimizer_step`. With fp16 give the Trainer max_grad_norm, so that gradients aren't scaled any more."""

    def __init__(
        self,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        output: str | Path | None = None,
        example_inputs: Tensor | tuple[Tensor, ...] | None = None,
    ) -> None:
        super().__init__()
        self.follower = Follower(recipe, output, example_inputs)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Begin, or go on from the checkpoint that the Trainer goes on from."""
        if state.global_step:
            saved = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE
            if saved.exists():
                self.follower.load(safetensors.torch.load_file(saved))
        # where the Trainer counts in steps, the epochs of its arguments mean nothing
        n_epochs = state.num_train_epochs if args.max_steps > 0 else args.num_train_epochs
        self.follower.begin(model, round(state.max_steps / n_epochs))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Gradients are whole."""
        self.follower.before_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The step is made; gradients go after this."""
        self.follower.after_step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the Pruner's state beside the Trainer's."""
        tensors = self.follower.state()  # all processes take part
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write_atomically(folder / STATE, safetensors.torch.save(tensors))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Exact zeros."""
        self.follower.end()
