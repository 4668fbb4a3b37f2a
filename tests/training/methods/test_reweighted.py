"""The reweighted penalty against an independent formula, and rates that emerge."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from prunus.sparsity.check import check
from prunus.sparsity.scheme import parse
from prunus.training.pruner import Pruner
from tests.training.networks import PRUNED, accuracy, adamw, cnn, sgd, steps_per_epoch, train, trained

N_STEPS = 12


def pruner_of(network: nn.Module, text: str, match: str = "15", **settings: object) -> Pruner:
    recipe = {
        "method": "reweighted", "epochs": {"sparsify": 2, "recover": 0}, "reweighted": settings,
        "layers": [{"match": match, "scheme": text}],
    }  # fmt: skip
    return Pruner(network, recipe, steps_per_epoch=N_STEPS // 2)


def groups_of(matrix: np.ndarray, rows: int, cols: int) -> list[tuple[slice, slice]]:
    """Boxes of rows x cols."""
    down = [slice(at, at + rows) for at in range(0, matrix.shape[0], rows)]
    across = [slice(at, at + cols) for at in range(0, matrix.shape[1], cols)]
    return list(itertools.product(down, across))


def reference(
    matrix: np.ndarray, then: np.ndarray, boxes: list[tuple[int, int]], norm: str, epsilon: float
) -> tuple[float, np.ndarray]:
    """The penalty at `matrix` with alpha as of `then`, and its gradient, by the docstring's formula in float64."""
    s = math.sqrt(np.square(then).mean())
    total, gradient = 0.0, np.zeros(matrix.shape)
    for rows, cols in boxes:
        for place in groups_of(matrix, rows, cols):
            now, before = matrix[place], then[place]
            r_before, r = math.sqrt(np.square(before).mean()), math.sqrt(np.square(now).mean())
            if norm == "squared":
                alpha = 1 / (r_before**2 + (epsilon * s) ** 2)
                total += s**2 * now.size * alpha * r**2 / 2
                gradient[place] += s**2 * alpha * now
            else:
                alpha = 1 / (r_before + epsilon * s)
                total += s**2 * now.size * alpha * r
                gradient[place] += s**2 * alpha * now / r
    return total, gradient


@pytest.mark.parametrize("norm", ["l2", "squared"])
@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("filter", [(1, 128)]), ("bcr:8x24", [(1, 24), (8, 1)]), ("block-column:5x16", [(5, 1)]),
        ("unstructured", [(1, 1)]), ("punched:8x3", [(8, 3)]),
    ],
)  # fmt: skip
def test_penalty_gradient_and_refreshes(norm: str, text: str, boxes: list[tuple[int, int]]) -> None:
    network = cnn()
    pruner = pruner_of(network, text, norm=norm, strength=3.0, epsilon=0.05, refreshes=3)
    weight = dict(network.named_parameters())["15.weight"]
    then = weight.detach().double().numpy().copy()
    rng = np.random.default_rng(0)
    for step in range(1, N_STEPS):
        with torch.no_grad():
            weight += torch.from_numpy(rng.normal(0, 0.02, weight.shape).astype(np.float32))
        wanted, slope = reference(weight.detach().double().numpy(), then, boxes, norm, 0.05)
        penalty = pruner.penalty()
        assert isinstance(penalty, torch.Tensor) and penalty.ndim == 0
        assert float(penalty.detach()) == pytest.approx(wanted * 3.0 / N_STEPS, rel=1e-4), step
        (gradient,) = torch.autograd.grad(penalty, weight)
        np.testing.assert_allclose(gradient.numpy(), slope * 3.0 / N_STEPS, rtol=1e-3, atol=1e-6)
        pruner.step()
        if step in (4, 8):  # refreshed after a third and two thirds
            then = weight.detach().double().numpy().copy()


@pytest.mark.parametrize("norm", ["l2", "squared"])
def test_gradcheck(norm: str) -> None:
    network = nn.Sequential(nn.Linear(7, 5, bias=False)).double()
    recipe = {
        "method": "reweighted", "reweighted": {"norm": norm}, "layers": [{"match": "0", "scheme": "bcr:2x3"}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=2)
    start = network[0].weight.detach().clone().requires_grad_()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        parameter = network[0].weight
        network[0]._parameters["weight"] = weight  # type: ignore[assignment]
        try:
            found = pruner.penalty()
        finally:
            network[0]._parameters["weight"] = parameter
        assert isinstance(found, torch.Tensor)
        return found

    assert torch.autograd.gradcheck(penalty, (start,))


def test_a_group_of_zeros_has_a_gradient_of_zero() -> None:
    network = nn.Sequential(nn.Linear(6, 4))
    with torch.no_grad():
        network[0].weight[1] = 0
    recipe = {"method": "reweighted", "layers": [{"match": "0", "scheme": "block-row:4x6"}]}
    pruner = Pruner(network, recipe, steps_per_epoch=2)
    penalty = pruner.penalty()
    assert isinstance(penalty, torch.Tensor)
    (gradient,) = torch.autograd.grad(penalty, network[0].weight)
    assert torch.isfinite(gradient).all() and not gradient[1].any() and gradient[0].any()
    with torch.no_grad():
        network[0].weight.zero_()
    assert pruner.finalize().layers[0].sparsity == 1.0 and pruner.masks["0.weight"].all()  # nothing is below nothing


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_planted_groups_go_and_others_stay(optimiser: str) -> None:
    """Filters at a third of their size vanish in two short epochs under the default strength; accuracy stays."""
    network = trained()
    planted = torch.zeros(48, dtype=torch.bool)
    planted[::3] = True
    with torch.no_grad():
        network[15].weight[planted] *= 0.3
    start = accuracy(network)
    recipe = {
        "method": "reweighted", "epochs": {"sparsify": 3, "recover": 1},
        "layers": [{"match": "15", "scheme": "filter"}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    train(network, 4 * steps_per_epoch(), (sgd if optimiser == "sgd" else adamw)(network), pruner)
    pruner.finalize()
    stays = pruner.masks["15.weight"].any(1)
    assert stays[planted.numpy()].mean() < 0.2, "small groups stay"
    assert stays[~planted.numpy()].mean() > 0.5, "large groups go"
    assert accuracy(network) > start - 0.04


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_rates_emerge_per_layer(optimiser: str) -> None:
    network = trained()
    dense = accuracy(network)
    recipe = {
        "method": "reweighted", "epochs": {"sparsify": 3, "recover": 2},
        "layers": [{"match": PRUNED, "scheme": "bcr:8x16"}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    train(network, 5 * steps_per_epoch(), (sgd if optimiser == "sgd" else adamw)(network), pruner)
    report = pruner.finalize()
    found = [layer.sparsity for layer in report.layers if layer.scheme]
    assert all(check(pruner.masks[layer.weight], parse("bcr:8x16")) is None for layer in report.layers if layer.scheme)
    assert max(found) > 0.2 and max(found) < 0.8 and len(set(found)) == 4
    assert accuracy(network) >= dense - 0.05


def test_by_value_exactly_the_groups_below_the_threshold_go() -> None:
    """Of bcr, rows and columns each by their own norm, and not by rank: here columns only are small."""
    network = nn.Sequential(nn.Linear(16, 8, bias=False))
    with torch.no_grad():
        network[0].weight[:] = torch.where(torch.arange(16) % 4 == 1, 1e-3, 1.0)
        network[0].weight[2, 8:] = 0.05
    recipe = {
        "method": "reweighted", "reweighted": {"threshold": 0.1}, "layers": [{"match": "0", "scheme": "bcr:4x8"}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=2)
    report = pruner.finalize()
    mask = pruner.masks["0.weight"]
    wanted = np.broadcast_to(np.arange(16) % 4 != 1, (8, 16)).copy()
    wanted[2, 8:] = False
    np.testing.assert_array_equal(mask, wanted)
    assert report.layers[0].sparsity == pytest.approx(1 - wanted.mean())
