"""What can be chosen per layer, with what each choice costs; and a choice for the whole network.

Every way to choose (rules, integer programme, search) takes a Space and returns a Mapping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

DENSE = 0  # index of the option that leaves a layer as it is: always there, always first


@dataclass(frozen=True)
class Option:
    """A way to prune a layer. scheme None: dense. ms: of the layer alone, estimated where it wasn't measured.

    loss: what pruning the layer alone in this way, one-shot, does to the network, in the unit of whoever measured it;
    0 for dense, None where nobody did.
    """

    scheme: str | None
    sparsity: float
    ms: float
    measured: bool = True
    loss: float | None = None


@dataclass(frozen=True)
class LayerSpace:
    """A layer: its node's name, that of its weights, the weights' shape, its multiply-adds, and the options.
    others: names of further weights, of recurrent layers and of layers that are computed alike. sharing: names of
    further nodes that read the same weights. all_weights: how many in all of its weights, 0 for those of `shape`."""

    name: str
    weight: str
    op: str
    shape: tuple[int, ...]
    macs: int
    options: tuple[Option, ...]
    others: tuple[str, ...] = ()
    sharing: tuple[str, ...] = ()
    all_weights: int = 0

    @property
    def n_weights(self) -> int:
        """How many weights pruning it concerns."""
        return self.all_weights or math.prod(self.shape)

    @property
    def dense_ms(self) -> float:
        """Of the layer as it is."""
        return self.options[DENSE].ms


@dataclass(frozen=True)
class Space:
    """Layers in the order of the network; other_ms: everything else of it, whatever is chosen."""

    layers: tuple[LayerSpace, ...]
    other_ms: float

    @property
    def dense_ms(self) -> float:
        """Of the network as it is."""
        return self.ms((DENSE,) * len(self.layers))

    def ms(self, mapping: Sequence[int]) -> float:
        """Predicted for the network with an option per layer."""
        return self.other_ms + sum(option.ms for option in self.chosen(mapping))

    def chosen(self, mapping: Sequence[int]) -> tuple[Option, ...]:
        """The options that a mapping (one index per layer) picks."""
        return tuple(layer.options[index] for layer, index in zip(self.layers, mapping, strict=True))
