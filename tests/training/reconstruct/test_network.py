"""Torch networks: what changes and what doesn't, errors, refusals, accuracy without labels."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunus.errors import CalibrationError, PrunusWarning, RecipeError, RuleError
from prunus.sparsity.check import check
from prunus.sparsity.project import project
from prunus.sparsity.scheme import FORMS, parse
from prunus.sparsity.schemes import SCHEMES
from prunus.training.reconstruct import Options, reconstruct
from prunus.training.reconstruct.network import evenly
from tests.training.reconstruct.networks import Small, inputs

BATCHES = [inputs(8, 8, 9, 9, seed=seed) for seed in range(4)]
HALF = {"layers": [{"match": "re:second|point", "scheme": "bcr:4x16", "sparsity": 0.5}]}


def error(model: nn.Module, dense: nn.Module, batches: list[Tensor]) -> float:
    with torch.no_grad():
        wanted = torch.cat([dense(x) for x in batches])
        return float((torch.cat([model(x) for x in batches]) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme(name: str) -> None:
    dense = Small()
    model, scheme = copy.deepcopy(dense), parse(FORMS[name])
    family = SCHEMES[name]
    rule = {"match": "re:^(second|linear)$", "scheme": FORMS[name]}
    rule |= {} if family.fixed else {"sparsity": max(0.5, 1 - family.densest(scheme))}
    with pytest.warns(PrunusWarning, match="stays dense") if name == "pattern" else torch.no_grad():
        result = reconstruct(model, {"layers": [rule]}, BATCHES)
    pruned = {layer.weight: layer for layer in result.layers if layer.scheme}
    assert set(pruned) == set(result.masks) == {"second.weight", *(["linear.weight"] if name != "pattern" else [])}
    for parameter, mask in result.masks.items():
        weight = model.get_parameter(parameter).detach().numpy()
        assert check(mask, scheme) is None
        assert (weight[~mask] == 0).all()
        assert pruned[parameter].sparsity == pytest.approx(1 - np.count_nonzero(weight) / weight.size)
    assert all(item.reconstructed <= item.magnitude for item in result.errors)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, dense.get_parameter(n))}
    assert changed == set(result.masks) | {parameter.replace("weight", "bias") for parameter in result.masks}
    magnitude = copy.deepcopy(dense)
    for parameter in result.masks:
        weight = magnitude.get_parameter(parameter)
        mask = project(weight.detach().numpy(), scheme, rule.get("sparsity"))
        weight.data *= torch.from_numpy(mask)
    assert error(model, dense, BATCHES) < error(magnitude, dense, BATCHES)


def test_distillation_keeps_the_zeros_and_comes_nearer() -> None:
    dense = Small()
    model, only = copy.deepcopy(dense), copy.deepcopy(dense)
    reconstruct(only, HALF, BATCHES)
    lines: list[str] = []
    result = reconstruct(model, HALF, BATCHES, Options(distil=20, rate=0.01), report=lines.append)
    for parameter, mask in result.masks.items():
        assert (model.get_parameter(parameter).detach().numpy()[~mask] == 0).all()
    assert error(model, dense, BATCHES) < 0.9 * error(only, dense, BATCHES)
    assert len(lines) == 2 + 20
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_same_inputs_give_the_same_weights() -> None:
    first, second = Small(), Small()
    for model in (first, second):
        reconstruct(model, HALF, BATCHES, Options(distil=1))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("samples", "expected"), [(1, [0]), (8, [0]), (9, [0, 2]), (24, [0, 1, 2]), (99, [0, 1, 2, 3])]
)
def test_least_squares_takes_some_batches(samples: int, expected: list[int]) -> None:
    taken = evenly([(batch,) for batch in BATCHES], samples)
    assert [next(i for i, b in enumerate(BATCHES) if b is batch) for (batch,) in taken] == expected


def test_a_running_mean_takes_what_a_missing_bias_cannot() -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16, affine=False)
    model = nn.Sequential(layer, norm).train()
    x = inputs(16, 8, 9, 9) + 3
    for _ in range(50):
        model(x)
    dense = copy.deepcopy(model).eval()
    reconstruct(model, {"layers": [{"match": "0", "scheme": "channel", "sparsity": 0.5}]}, [x])
    assert model.training and norm.training
    with torch.no_grad():
        found, wanted = model.eval()(x), dense(x)
    torch.testing.assert_close(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(norm.running_var, dense[1].running_var)


def test_a_layer_that_is_never_called_stays_dense() -> None:
    model = Small()
    model.extra = nn.Linear(4, 4)
    before = model.extra.weight.detach().clone()
    recipe = {"layers": [{"match": "re:.", "scheme": "filter", "sparsity": 0.5}]}
    with pytest.warns(PrunusWarning, match="stays dense") as said:
        result = reconstruct(model, recipe, BATCHES)
    assert {str(warning.message).split()[0] for warning in said} == {"depthwise.weight", "extra.weight"}
    assert torch.equal(model.extra.weight, before)
    assert "extra.weight" not in result.masks
    with pytest.raises(RuleError, match="extra"):
        reconstruct(model, {"layers": [{"match": "extra", "scheme": "filter", "sparsity": 0.5}]}, BATCHES)


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [torch.full((2, 8, 9, 9), torch.nan)],
        [BATCHES[0], torch.full((2, 8, 9, 9), torch.inf)],
        [torch.zeros(0, 8, 9, 9)],
        ["x"],
    ],
)
def test_bad_calibration_is_refused_and_nothing_changes(batches: list[Tensor]) -> None:
    model = Small()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CalibrationError, match="batch"):
        reconstruct(model, HALF, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_accuracy_without_labels() -> None:
    """Digits at 80 %: one-shot magnitude loses them, reconstruction keeps most. Labels are for training the dense
    network and for counting only."""
    datasets = pytest.importorskip("sklearn.datasets")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = datasets.load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    dense = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(dense.parameters(), 4e-3)
    for step in range(120):
        batch = torch.randperm(1200, generator=torch.Generator().manual_seed(step))[:128]
        optimiser.zero_grad()
        nn.functional.cross_entropy(dense(x[batch]), y[batch]).backward()
        optimiser.step()

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(x[1200:]).argmax(1) == y[1200:]).float().mean())

    scheme, names = parse("bcr:8x64"), ("2.weight", "4.weight", "7.weight")
    magnitude, model = copy.deepcopy(dense), copy.deepcopy(dense)
    for name in names:
        weight = magnitude.get_parameter(name)
        weight.data *= torch.from_numpy(project(weight.detach().numpy(), scheme, 0.8))
    rule = {"match": "re:^[247]$", "scheme": "bcr:8x64", "sparsity": 0.8}
    reconstruct(model, {"layers": [rule]}, list(x[:300].split(50)))
    assert accuracy(dense) > 0.9
    assert accuracy(model) > accuracy(magnitude) + 0.2
    assert accuracy(model) > accuracy(dense) - 0.1


def test_rules_that_keep_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"rule 're:\.\*': keep, expected skip, or a scheme"):
        reconstruct(Small(), {"layers": [{"match": "re:.*", "keep": True}]}, [inputs(2, 3, 8, 8)])
