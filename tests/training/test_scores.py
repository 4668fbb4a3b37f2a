"""Scores against plain sums of gradients."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.errors import TrainingError
from prunus.training.layers import find_layers
from prunus.training.scores import Scores, array_of


def gradients(network: nn.Module, seed: int) -> np.ndarray:
    """Of the first layer's weight, by hand: the mean over a batch of (y - wanted) x."""
    generator = torch.Generator().manual_seed(seed)
    x, wanted = torch.randn(5, 4, generator=generator), torch.randn(5, 3, generator=generator)
    network.zero_grad()
    functional.mse_loss(network(x), wanted).backward()
    weight, bias = (network[0].weight.detach().numpy(), network[0].bias.detach().numpy())
    error = x.numpy() @ weight.T + bias - wanted.numpy()
    return 2 * error.T @ x.numpy() / error.size


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_against_means_over_steps(criterion: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3))
    (layer,) = find_layers(network)
    scores = Scores([layer], criterion, collect=4)  # type: ignore[arg-type]
    np.testing.assert_array_equal(scores.of(layer), array_of(layer.weight))  # before any gradient
    seen = []
    for step in range(4):
        assert scores.wants_more
        seen.append(gradients(network, step))
        scores.add()
    assert not scores.wants_more
    weight = np.abs(array_of(layer.weight))
    taylor = np.sqrt(weight * np.abs(np.mean(seen, 0)))
    fisher = weight * np.sqrt(np.mean(np.square(seen), 0))
    wanted = taylor if criterion == "taylor" else fisher
    np.testing.assert_allclose(scores.of(layer), wanted, rtol=1e-4, atol=1e-6)
    last = gradients(network, 9)  # one more moves the mean by a quarter
    scores.add()
    mean = np.mean(seen, 0) * 0.75 + last * 0.25
    if criterion == "taylor":
        np.testing.assert_allclose(scores.of(layer), np.sqrt(weight * np.abs(mean)), rtol=1e-4, atol=1e-6)


def test_magnitude_takes_no_gradients() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    (layer,) = find_layers(network)
    scores = Scores([layer], "magnitude", collect=4)
    scores.add()
    assert not scores.wants_more and scores.seen == 0
    np.testing.assert_array_equal(scores.of(layer), layer.weight.detach().numpy())


def test_gradients_that_are_gone() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    scores = Scores(find_layers(network), "fisher", collect=1)
    with pytest.raises(TrainingError, match=r"0\.weight has no gradient.*zero_grad"):
        scores.add()


def test_state_goes_on_where_it_was_and_follows_dtype() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3))
    (layer,) = find_layers(network)
    first, second = Scores([layer], "fisher", 3), Scores([layer], "fisher", 3)
    for step in range(2):
        gradients(network, step)
        first.add()
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    gradients(network, 2)
    first.add()
    second.add()
    np.testing.assert_array_equal(first.of(layer), second.of(layer))
    network.double()
    functional.mse_loss(network(torch.ones(1, 4).double()), torch.ones(1, 3).double()).backward()
    second.add()
    assert second.of(layer).dtype == np.float64


def test_arrays_are_copies() -> None:
    weight = torch.ones(3)
    array_of(weight)[:] = 0
    assert weight.tolist() == [1, 1, 1]
    assert array_of(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_a_frozen_weight_is_ranked_by_magnitude() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    network[0].requires_grad_(False)
    layers = find_layers(network)
    scores = Scores(layers, "taylor", collect=1)
    network(torch.ones(2, 4)).sum().backward()
    scores.add()
    np.testing.assert_array_equal(scores.of(layers[0]), array_of(layers[0].weight))
    assert not scores.wants_more
