"""What ranks the weights: magnitude, or what losing them would cost by Taylor or Fisher.

Scores are like weights: a group is worth the mean of their squares. Taylor: |w g| with the mean gradient g. Fisher: w^2
times the mean squared gradient. Both need the gradients of some steps.
Sources: Molchanov et al., CVPR 2019, arXiv:1906.10771 (Taylor), here per weight, so that every scheme can use it;
Theis et al., 2018, arXiv:1801.05787 (Fisher), with the gradients of batches in place of those of samples.
"""

from collections.abc import Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.errors import TrainingError
from prunus.training.layers import Layer
from prunus.training.shards import like, whole

Criterion = Literal["magnitude", "taylor", "fisher"]


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A copy of a tensor as a float32 or float64 array, gathered where it is in shards."""
    tensor = whole(tensor.detach()).cpu()
    return np.array((tensor if tensor.dtype == torch.float64 else tensor.float()).numpy())  # .numpy() alone shares it


@final
class Scores:
    """Scores of the weights of `layers`. `add` takes their gradients into account, as long as `wants_more`."""

    def __init__(self, layers: Sequence[Layer], criterion: Criterion, collect: int) -> None:
        self.criterion, self.collect, self.seen = criterion, collect, 0
        self._layers = {layer.parameter: layer for layer in layers}
        self._sums: dict[str, Tensor] = {}

    @property
    def wants_more(self) -> bool:
        """Are there fewer gradients than a decision should rest on?"""
        return self.criterion != "magnitude" and self.seen < self.collect

    def add(self) -> None:
        """Take the gradients that the parameters have now. Later ones count for more: a running mean."""
        if self.criterion == "magnitude":
            return
        self.seen += 1
        for name, layer in self._layers.items():
            gradient = layer.weight.grad
            if gradient is None and not layer.weight.requires_grad:
                continue  # frozen: its magnitude has to do
            if gradient is None:
                raise TrainingError(
                    f"{name} has no gradient, and {self.criterion} needs one: "
                    "expected pruner.step() after loss.backward() and before zero_grad()"
                )
            value = gradient.detach() if self.criterion == "taylor" else gradient.detach().square()
            share = 1 / min(self.seen, self.collect)
            if name in self._sums:
                self._sums[name] = self._sums[name].to(value).lerp_(value, share)
            else:
                self._sums[name] = value.clone()

    def of(self, layer: Layer) -> NDArray[Any]:
        """float like the layer's weight; its magnitude as long as there are no gradients."""
        weight = array_of(layer.weight)
        if layer.parameter not in self._sums:
            return weight
        gradients = array_of(self._sums[layer.parameter])
        taylor = self.criterion == "taylor"
        score: NDArray[Any] = np.sqrt(np.abs(weight * gradients)) if taylor else np.abs(weight) * np.sqrt(gradients)
        return score

    def state(self) -> dict[str, Tensor]:
        """What `load` takes."""
        return {**{name: whole(tensor) for name, tensor in self._sums.items()}, "": torch.tensor(self.seen)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self._sums = {name: like(tensor.clone(), self._layers[name].weight) for name, tensor in state.items() if name}
        self.seen = int(state[""])
