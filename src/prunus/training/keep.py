"""Zeros that a network comes with, kept: each rule with `keep` as rules for the layers that it hits."""

import numpy as np

from prunus.pruning.selection import matches
from prunus.training.layers import Layer
from prunus.training.recipe import Recipe, Rule
from prunus.training.scores import array_of


def with_kept(recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
    """The recipe with such rules spelled out: unstructured, as sparse as each layer is now, so that its zeros
    and no others go. A layer without zeros is skipped. Rules that hit nothing stay, to be complained about."""
    rules = list[Rule]()
    for rule in recipe.layers:
        hit = [layer for layer in layers if matches(rule.match, (layer.name, layer.parameter))] if rule.keep else []
        rules += [_as_it_is(layer) for layer in hit] or [rule]
    return recipe.model_copy(update={"layers": tuple(rules)})


def _as_it_is(layer: Layer) -> Rule:
    weight = array_of(layer.weight)
    zeros = 1 - np.count_nonzero(weight) / max(weight.size, 1)
    if not zeros or layer.refusal:
        return Rule(match=layer.parameter, skip=True)
    return Rule(match=layer.parameter, scheme="unstructured", sparsity=zeros)
