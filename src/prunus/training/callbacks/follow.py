"""A Pruner that follows somebody else's training loop, in which no term can be added to the loss.

The penalty's gradient is added to those that the loop has, right before the optimiser's step; that is the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.training.pruner import Pruner, PruneReport
from prunus.training.recipe import Recipe


@final
class Follower:
    """Pruner of a loop: `begin`, then `before_step` and `after_step` around each step of the optimiser, then `end`.

    output: ONNX file to write at the end. example_inputs: for it. report: what became of each layer, after the end.
    """

    def __init__(
        self,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        output: str | Path | None = None,
        example_inputs: Tensor | tuple[Tensor, ...] | None = None,
    ) -> None:
        self._recipe, self._output, self._example_inputs = recipe, output, example_inputs
        self._waiting: dict[str, Tensor] | None = None
        self.pruner: Pruner | None = None
        self.report: PruneReport | None = None

    def begin(self, model: nn.Module, steps_per_epoch: int) -> None:
        """The loop starts, or goes on: the model has its weights. Raises as `Pruner`, and as its `load_state_dict`."""
        self.pruner = Pruner(model, self._recipe, self._example_inputs, max(steps_per_epoch, 1))
        if self._waiting is not None:
            self.pruner.load_state_dict(self._waiting)
            self._waiting = None

    def before_step(self) -> None:
        """Gradients are there, and whole."""
        assert self.pruner is not None
        penalty = self.pruner.penalty()
        if not isinstance(penalty, Tensor) or not penalty.requires_grad:
            return
        weights = [target.layer.weight for target in self.pruner.targets]
        # not backward(): what distributes the model listens to that, and has summed up already
        gradients: Sequence[Tensor | None] = torch.autograd.grad(penalty, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is None:
                continue
            if weight.grad is None:
                weight.grad = gradient
            else:
                weight.grad.add_(gradient)

    def after_step(self) -> None:
        """The optimiser has made its step, and gradients are still there."""
        assert self.pruner is not None
        self.pruner.step()

    def end(self) -> None:
        """Exact zeros, and the ONNX file if one was asked for."""
        assert self.pruner is not None
        self.report = self.pruner.finalize()
        if self._output is not None:
            self.pruner.export(self._output)

    def state(self) -> dict[str, Tensor]:
        """What `load` takes; empty before the loop starts."""
        return self.pruner.state_dict() if self.pruner is not None else {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`: at once, or when the loop starts."""
        if self.pruner is not None:
            self.pruner.load_state_dict(state)
        elif state:
            self._waiting = dict(state)
