"""Masks in force: exact zeros, whatever the optimiser and wherever the weights go."""

import numpy as np
import torch
from torch import nn

from prunus.training.layers import find_layers
from prunus.training.masks import Masks


def test_zeros_are_exact_and_the_rest_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    masks = Masks(find_layers(network))
    before = network[0].weight.detach().clone()
    mask = np.random.default_rng(0).random((6, 8)) < 0.5
    masks.set({"0.weight": mask})
    assert "0.weight" in masks and "1.weight" not in masks
    np.testing.assert_array_equal(network[0].weight.detach().numpy(), np.where(mask, before.numpy(), 0))
    assert int((network[1].weight == 0).sum()) == 0
    with torch.no_grad():
        network[0].weight += 1
    masks.apply()
    np.testing.assert_array_equal(network[0].weight.detach().numpy() != 0, mask)


def test_a_new_mask_replaces_the_old_one() -> None:
    network = nn.Sequential(nn.Linear(2, 1, bias=False))
    masks = Masks(find_layers(network))
    masks.set({"0.weight": np.array([[True, False]])})
    assert masks.tensor("0.weight").tolist() == [[1.0, 0.0]]
    masks.set({"0.weight": np.array([[False, True]])})
    assert masks.tensor("0.weight").tolist() == [[0.0, 1.0]]
    assert network[0].weight.tolist() == [[0.0, 0.0]]


def test_masks_follow_dtype_and_a_replaced_parameter() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    masks = Masks(find_layers(network))
    masks.set({"0.weight": np.eye(3, 4, dtype=bool)})
    network.double()
    network[0].weight = nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
    masks.apply()
    assert network[0].weight.tolist() == np.eye(3, 4).tolist() and masks.tensor("0.weight").dtype == torch.float64
