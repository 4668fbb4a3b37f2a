"""Zeros that a network comes with, kept: each rule with `keep` as rules for the layers that it hits.

A Pruner masks such layers from the start, whatever its method does with others.
"""

import numpy as np

from prunus.pruning.selection import matches
from prunus.training.layers import Layer
from prunus.training.recipe import Recipe, Rule
from prunus.training.scores import array_of


def with_kept(recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
    """The recipe with such rules spelled out: unstructured, as sparse as each layer is now, so that its zeros
    and no others go; layers of earlier rules are theirs. A layer without zeros is skipped. Rules that hit nothing
    stay, to be complained about."""
    rules, left = list[Rule](), layers
    for rule in recipe.layers:
        hit = [layer for layer in left if matches(rule.match, layer.names)]
        left = tuple(layer for layer in left if layer not in hit)
        rules += [_as_it_is(layer) for layer in hit if rule.keep] or [rule]
    return recipe.model_copy(update={"layers": tuple(rules)})


def _as_it_is(layer: Layer) -> Rule:
    weight = array_of(layer.weight)
    zeros = 1 - np.count_nonzero(weight) / max(weight.size, 1)
    if not zeros or layer.refusal:
        return Rule(match=layer.parameter, skip=True)
    known = Rule(match=layer.parameter, scheme="unstructured", sparsity=zeros)
    return known.model_copy(update={"keep": True})
