"""Goals: masks at a sparsity, on the way to it, and in two periods."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from prunus.sparsity.check import check
from prunus.sparsity.project import TOLERANCE, project
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.goals import Goal, first_period, second_period
from prunus.training.layers import Layer, Target
from prunus.training.scores import array_of

SHAPES = [(28, 16, 3, 3), (48, 128), (10, 20)]


def layer_of(shape: tuple[int, ...], seed: int = 0, name: str = "a.weight") -> Layer:
    torch.manual_seed(seed)
    module = nn.Conv2d(shape[1], shape[0], shape[2:]) if len(shape) == 4 else nn.Linear(shape[1], shape[0])
    return Layer(name.partition(".")[0], name, module)


def score_of(layer: Layer) -> NDArray[np.float32]:
    return array_of(layer.weight)  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", ["unstructured", "bcr:8x16", "punched:4x2", "block-row:4x8", "filter"])
def test_a_mask_is_the_projection_at_its_sparsity(text: str) -> None:
    layer = layer_of(SHAPES[0])
    goal = Goal(layer, parse(text), 0.8)
    np.testing.assert_array_equal(goal.mask(score_of(layer), 0.8), project(score_of(layer), parse(text), 0.8))
    assert goal.mask(score_of(layer), 0.0).all()
    assert not goal.mask(score_of(layer), 1.0).any()


@pytest.mark.parametrize("text", ["2:4", "1:4", "pattern:4"])
def test_schemes_that_fix_a_sparsity_come_by_way_of_looser_ones(text: str) -> None:
    layer = layer_of(SHAPES[0])
    scheme = parse(text)
    own = 1 - (scheme.block[0] / (scheme.block[1] if scheme.name == "n:m" else 9))
    goal = Goal(layer, scheme, own)
    achieved = [1 - goal.mask(score_of(layer), sparsity).mean() for sparsity in np.linspace(0, own, 11)]
    assert achieved == sorted(achieved) and achieved[0] == 0 and len(set(achieved)) > 2
    assert abs(achieved[-1] - own) < 1e-6
    assert check(goal.mask(score_of(layer), own), scheme) is None
    looser = goal.mask(score_of(layer), 0.25)
    assert check(looser, Scheme("n:m", (3, 4)) if scheme.name == "n:m" else Scheme("pattern", (7,))) is None


def test_n_of_m_on_few_channels_is_never_dense() -> None:
    """Three channels can't keep 2 of 4 exactly: what they achieve is below 0.5, and still it is their mask."""
    layer = layer_of((3, 3, 1, 1))
    mask = Goal(layer, parse("2:4"), 0.5).mask(score_of(layer), 0.5)
    np.testing.assert_array_equal(mask, project(score_of(layer), parse("2:4"), None))
    assert not mask.all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["bcr:8x64", "bcr:4x8", "bcr:16x16"])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_columns_then_rows_make_bcr(shape: tuple[int, ...], text: str, sparsity: float) -> None:
    layer = layer_of(shape)
    target = Target(layer, parse(text), sparsity)
    (first,) = first_period([target], by_columns=True)
    assert first.scheme.name == "block-column" and first.sparsity is not None
    assert abs((1 - first.sparsity) ** 2 - (1 - sparsity)) < 1e-6
    columns = first.mask(score_of(layer), first.sparsity)
    (second,) = second_period([target], {layer.parameter: columns})
    mask = second.mask(score_of(layer), sparsity)
    assert not (mask & ~columns).any(), "what the columns dropped has come back"
    assert check(mask, target.scheme) is None
    row = min(target.scheme.block[1], columns.reshape(len(columns), -1).shape[1]) / mask.size
    assert abs(1 - mask.mean() - sparsity) <= max(TOLERANCE, row / 2)


def test_other_schemes_go_half_of_their_way_first() -> None:
    layers = [layer_of(SHAPES[0], name=f"{index}.weight") for index in range(4)]
    texts = [("unstructured", 0.75), ("2:4", 0.5), ("pattern:4", 0.6), ("pattern:4", 0.9)]
    targets = [Target(layer, parse(text), sparsity) for layer, (text, sparsity) in zip(layers, texts, strict=True)]
    halves = [goal.sparsity for goal in first_period(targets, by_columns=True)]
    assert halves == [0.5, 0.5, 0.6, pytest.approx(1 - 0.1**0.5)]
    assert [goal.sparsity for goal in second_period(targets, {})] == [0.75, 0.5, 0.6, 0.9]
    assert [goal.sparsity for goal in first_period(targets, by_columns=False)] == [0.75, 0.5, 0.6, 0.9]
    emerging = first_period([Target(layers[0], parse("bcr:4x4"), None)], by_columns=True)
    assert emerging[0].sparsity is None
