"""The masks in force, and how they are kept: what they drop is zero after every step, exactly."""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.training import shards
from prunus.training.layers import Layer

Bools = NDArray[np.bool_]


@final
class Masks:
    """bool per weight, True where it stays; layers without one are dense.

    Momentum, weight decay and updates of other kinds move a weight off zero even where its gradient is zero; so the
    mask is applied after each step, whatever the optimiser is.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = {layer.parameter: layer for layer in layers}
        self._arrays: dict[str, Bools] = {}
        self._tensors: dict[str, Tensor] = {}

    def set(self, masks: Mapping[str, Bools]) -> None:
        """Replace the masks of the named weights by those of rank 0, and apply them."""
        agreed = shards.agree(dict(masks))
        self._arrays |= agreed
        for name in agreed:
            self._tensors.pop(name, None)
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set to zero what the masks drop."""
        for name in self._arrays:
            weight = self._layers[name].weight
            weight.mul_(self.tensor(name))

    def tensor(self, name: str) -> Tensor:
        """The mask as ones and zeros, where its weight is and in its dtype."""
        weight, known = self._layers[name].weight, self._tensors.get(name)
        if known is None or known.device != weight.device or known.dtype != weight.dtype:
            known = self._tensors[name] = shards.like(self._arrays[name], weight.detach())
        return known

    def arrays(self) -> dict[str, Bools]:
        """The masks by the parameter's name; not to be written to."""
        return dict(self._arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays
