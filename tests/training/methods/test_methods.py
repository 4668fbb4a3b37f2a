"""Every method with every scheme on real digits: accuracy, exact sparsity, obedience, zeros after every step."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.sparsity.check import check
from prunus.sparsity.project import TOLERANCE
from prunus.sparsity.scheme import parse
from prunus.sparsity.schemes import SCHEMES
from prunus.training.methods import METHODS
from prunus.training.pruner import Pruner
from tests.training.networks import PRUNED, accuracy, adamw, cnn, sgd, steps_per_epoch, train, trained

# scheme, sparsity, and how many points below the dense network's accuracy it may end
SCHEME_CASES = [
    ("unstructured", 0.8, 3), ("filter", 0.4, 6), ("channel", 0.25, 5), ("block-row:4x16", 0.7, 4),
    ("block-column:4x16", 0.7, 4), ("punched:4x2", 0.7, 4), ("bcr:8x16", 0.7, 4), ("2:4", 0.5, 3),
    ("pattern:4", 0.75, 4),
]  # fmt: skip
OPTIMISERS = {"sgd": sgd, "adamw": adamw}
CASES = [
    pytest.param(method, optimiser, *case, marks=[pytest.mark.slow] if optimiser == "adamw" else [])
    for method in METHODS for case in SCHEME_CASES for optimiser in OPTIMISERS
    if optimiser == "sgd" or case[0].startswith(("bcr", "unstructured"))
]  # fmt: skip


def test_every_scheme_is_tested() -> None:
    assert {parse(text).name for text, _, _ in SCHEME_CASES} == set(SCHEMES)


def watch(network: nn.Module, pruner: Pruner, n_steps: int, optimizer: torch.optim.Optimizer) -> list[int]:
    """Train; after each step what the masks drop is zero. Returns how many weights are zero after each."""
    zeros = []

    def after(step: int) -> None:
        weights = dict(network.named_parameters())
        for name, mask in pruner.masks.items():
            assert not weights[name].detach().numpy()[~mask].any(), f"step {step}: {name} has drifted"
        zeros.append(sum(int(np.count_nonzero(~mask)) for mask in pruner.masks.values()))

    train(network, n_steps, optimizer, pruner, after=after)
    return zeros


@pytest.mark.parametrize(("method", "optimiser", "text", "sparsity", "drop"), CASES)
def test_accuracy_sparsity_and_zeros(method: str, optimiser: str, text: str, sparsity: float, drop: int) -> None:
    network = trained()
    dense = accuracy(network)
    rule = {"match": PRUNED if text != "pattern:4" else "re:^(3|10)$", "scheme": text, "sparsity": sparsity}
    recipe = {"method": method, "epochs": {"sparsify": 2, "recover": 2}, "layers": [rule]}
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    assert pruner.epochs == 4
    watch(network, pruner, pruner.epochs * steps_per_epoch(), OPTIMISERS[optimiser](network))
    report = pruner.finalize()
    pruned = [layer for layer in report.layers if layer.scheme]
    assert len(pruned) == (2 if text == "pattern:4" else 4)
    weights = dict(network.named_parameters())
    for layer in pruned:
        weight = weights[layer.weight].detach().numpy()
        assert abs(1 - np.count_nonzero(weight) / weight.size - sparsity) <= TOLERANCE, (layer, sparsity)
        assert layer.sparsity == pytest.approx(1 - np.count_nonzero(weight) / weight.size)
        assert check(weight != 0, parse(text)) is None and layer.note == ""
        np.testing.assert_array_equal(weight != 0, pruner.masks[layer.weight])
    assert abs(report.sparsity - sparsity) <= TOLERANCE
    assert accuracy(network) >= dense - drop / 100


@pytest.mark.parametrize("method", METHODS)
def test_columns_first_and_rows_later(method: str) -> None:
    network = trained()
    dense = accuracy(network)
    recipe = {
        "method": method, "epochs": {"sparsify": 2, "recover": 2}, "bcr": "column-row",
        "layers": [
            {"match": "15", "scheme": "unstructured", "sparsity": 0.75},
            {"match": PRUNED, "scheme": "bcr:8x16", "sparsity": 0.75},
        ],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    optimizer, half = sgd(network), steps_per_epoch()
    half -= method == "one-shot"  # which drops rows as soon as their time begins
    train(network, half, optimizer, pruner)
    columns = pruner.masks["10.weight"]
    assert check(columns, parse("block-column:8x16")) is None and abs(1 - columns.mean() - 0.5) <= TOLERANCE
    train(network, 4 * steps_per_epoch(), optimizer, pruner, start=half)
    report = pruner.finalize()
    for layer in report.layers:
        if layer.scheme:
            assert abs(layer.sparsity - 0.75) <= TOLERANCE and not layer.note, layer
            assert check(pruner.masks[layer.weight], layer.scheme) is None
    rows = pruner.masks["10.weight"]
    assert not (rows & ~columns).any() and check(rows, parse("block-column:8x16")) is not None
    assert accuracy(network) >= dense - 0.06


@pytest.mark.parametrize("method", METHODS)
def test_no_time_to_sparsify(method: str) -> None:
    """Epochs of 0: the masks stand before the first step; in both periods."""
    for bcr in ("joint", "column-row"):
        network = cnn()
        recipe = {
            "method": method, "epochs": {"sparsify": 0, "recover": 1}, "bcr": bcr,
            "layers": [{"match": PRUNED, "scheme": "bcr:8x16", "sparsity": 0.75}],
        }  # fmt: skip
        pruner = Pruner(network, recipe, steps_per_epoch=5)
        assert pruner.phase == "recover" and pruner.penalty() == 0.0
        for mask in pruner.masks.values():
            assert abs(1 - mask.mean() - 0.75) <= TOLERANCE and check(mask, parse("bcr:8x16")) is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bcr", ["joint", "column-row"])
def test_one_sparsity_for_all_layers_together(method: str, bcr: str) -> None:
    network = trained()
    with torch.no_grad():
        network[3].weight[::2] *= 0.05  # half of a layer is worth nothing
    rules = [
        {"match": "3", "scheme": "filter", "sparsity": 0.5}, {"match": "7", "scheme": "2:4"},
        {"match": "10", "scheme": "pattern:4", "sparsity": 0.7}, {"match": "15", "scheme": "bcr:8x16", "sparsity": 0.8},
    ]  # fmt: skip
    epochs = {"sparsify": 2, "recover": 0}
    recipe = {"method": method, "scope": "global", "bcr": bcr, "epochs": epochs, "layers": rules}
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    watch(network, pruner, 2 * steps_per_epoch(), sgd(network))
    report = pruner.finalize()
    wanted = {"3.weight": 0.5, "7.weight": 0.5, "10.weight": 0.7, "15.weight": 0.8}
    sizes = {layer.weight: int(np.prod(layer.shape)) for layer in report.layers}
    overall = sum(wanted[name] * sizes[name] for name in wanted) / sum(sizes[name] for name in wanted)
    assert abs(report.sparsity - overall) <= TOLERANCE
    for layer in report.layers:
        if layer.scheme:
            assert check(pruner.masks[layer.weight], layer.scheme) is None and not layer.note
            assert pruner.masks[layer.weight].any()
    assert next(layer for layer in report.layers if layer.name == "7").sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "admm"])
def test_criteria_wait_for_gradients(method: str, criterion: str) -> None:
    network = trained()
    dense = accuracy(network)
    recipe = {
        "method": method, "criterion": criterion, "collect": 10, "epochs": {"sparsify": 2, "recover": 1},
        "layers": [{"match": PRUNED, "scheme": "bcr:8x16", "sparsity": 0.7}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    assert not pruner.masks
    zeros = watch(network, pruner, 3 * steps_per_epoch(), sgd(network))
    assert not any(zeros[:9]) and zeros[-1]
    if method == "one-shot":
        assert zeros[9] == zeros[-1]
    report = pruner.finalize()
    assert all(abs(layer.sparsity - 0.7) <= TOLERANCE for layer in report.layers if layer.scheme)
    assert accuracy(network) >= dense - 0.05


def test_gradients_may_be_too_few_for_the_schedule() -> None:
    """More are asked for than there are steps to sparsify in: it goes on until they are there, or finalize ends it."""
    for n_steps in (4, 12):
        network = trained()
        recipe = {
            "method": "gradual", "criterion": "taylor", "collect": 10, "epochs": {"sparsify": 1, "recover": 3},
            "layers": [{"match": PRUNED, "scheme": "unstructured", "sparsity": 0.7}],
        }  # fmt: skip
        pruner = Pruner(network, recipe, steps_per_epoch=3)
        train(network, n_steps, sgd(network), pruner)
        assert (pruner.phase == "sparsify") == (n_steps == 4)
        report = pruner.finalize()
        assert all(abs(layer.sparsity - 0.7) <= TOLERANCE for layer in report.layers if layer.scheme)
