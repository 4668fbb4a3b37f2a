"""The policy is a distribution over the mappings of its space."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.mapping.policy import Policy
from prunus.mapping.space import Space
from tests.mapping.spaces import space_of


def ragged() -> Space:
    """Layers with different numbers of options, one of which can't be pruned at all."""
    layers = space_of(3, 3).layers
    cut = [replace(layer, options=layer.options[:n]) for layer, n in zip(layers, (3, 1, 4), strict=True)]
    return Space(tuple(cut), 0.1)


def test_probabilities_of_all_mappings_add_up_to_one() -> None:
    policy = Policy(ragged(), 0, (2, 0, 1))
    every = torch.tensor(list(product(range(3), range(1), range(4))))
    logs, entropies = policy.judge(every)
    assert float(logs.detach().exp().sum()) == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(entropies).all()
    assert policy.likeliest() == (2, 0, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_samples_are_mappings_of_the_space(seed: int, n: int) -> None:
    space = ragged()
    policy = Policy(space, seed)
    found = policy.sample(n, torch.Generator().manual_seed(seed))
    assert found.shape == (n, 3)
    for mapping in found.tolist():
        assert all(i < len(layer.options) for i, layer in zip(mapping, space.layers, strict=True))
    assert found.equal(policy.sample(n, torch.Generator().manual_seed(seed)))


def test_making_one_leaves_chance_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    Policy(ragged(), 0)
    assert before.equal(torch.random.get_rng_state())
