"""A space of four layers, and accuracies of its mappings that cost nothing."""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np

from prunus.mapping.search import Found, Mapping, best_of
from prunus.mapping.space import LayerSpace, Option, Space

SCHEMES = ("bcr:8x64", "punched:8x4", "unstructured")
SPARSITIES = (0.5, 0.8, 0.9)
DENSE_ACCURACY = 0.93


def space_of(seed: int, n_layers: int = 4) -> Space:
    """Each scheme is fast on some layers and gentle on others; times fall with sparsity."""
    generator = np.random.default_rng(seed)
    layers = []
    for number in range(n_layers):
        dense_ms, shape = float(generator.uniform(0.5, 2)), (32, 16 << (number % 3), 3, 3)
        options = [Option(None, 0.0, dense_ms, loss=0.0)]
        for scheme in SCHEMES:
            overhead, harm = generator.uniform(0.05, 0.4), generator.uniform(0.002, 0.03)
            for sparsity in SPARSITIES:
                ms = dense_ms * (overhead + (1 - sparsity))
                options.append(Option(scheme, sparsity, float(ms), loss=float(harm * sparsity**4)))
        macs = int(np.prod(shape)) * 196 >> number
        layers.append(LayerSpace(f"conv{number}", f"conv{number}.weight", "conv", shape, macs, tuple(options)))
    return Space(tuple(layers), 0.1)


def additive(space: Space) -> Callable[[Mapping], float]:
    """Losses of layers, added up."""

    def accuracy(mapping: Mapping) -> float:
        return DENSE_ACCURACY - sum(option.loss or 0.0 for option in space.chosen(mapping))

    return accuracy


def entangled(space: Space) -> Callable[[Mapping], float]:
    """Losses that multiply where neighbours lose too: no sum of losses of layers is this."""

    def accuracy(mapping: Mapping) -> float:
        losses = [option.loss or 0.0 for option in space.chosen(mapping)]
        between = sum(400 * a * b for a, b in pairwise(losses))
        return DENSE_ACCURACY - sum(losses) - between

    return accuracy


def exhaustive(space: Space, accuracy: Callable[[Mapping], float], budget_ms: float) -> Found:
    """The best of all mappings."""
    every = product(*(range(len(layer.options)) for layer in space.layers))
    best = best_of([Found(m, accuracy(m), space.ms(m)) for m in every if space.ms(m) <= budget_ms], budget_ms)
    assert best is not None
    return best


def lost(found: Found) -> float:
    """What a mapping costs in accuracy."""
    return DENSE_ACCURACY - found.accuracy
