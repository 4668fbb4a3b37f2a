"""The cubic, and regrowth against a dense copy that is trained straight through its masks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.sparsity.project import project
from prunus.sparsity.scheme import Scheme
from prunus.training.pruner import Pruner
from tests.training.networks import adamw, cnn, sgd, train, trained

RULES = [{"match": "re:^(3|15)$", "scheme": "unstructured", "sparsity": 0.8}]


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_sparsity_rises_as_a_cubic(start: float) -> None:
    network = trained()
    recipe = {
        "method": "gradual",
        "epochs": {"sparsify": 2, "recover": 1},
        "gradual": {"start": start, "updates": 4},
        "layers": RULES,
    }
    pruner = Pruner(network, recipe, steps_per_epoch=8)
    found = {0: 1 - pruner.masks["3.weight"].mean() if pruner.masks else 0.0}

    def after(step: int) -> None:
        found[step] = 1 - pruner.masks["3.weight"].mean() if pruner.masks else 0.0

    train(network, 24, sgd(network), pruner, after=after)
    for step in range(25):
        done = min(step // 2, 8) / 8  # eight updates in 16 steps
        wanted = 0.8 + (start - 0.8) * (1 - done) ** 3
        assert found[step] == pytest.approx(wanted, abs=1e-3), step


def test_sparsity_never_falls_between_two_periods() -> None:
    network = trained()
    rules = [
        {"match": "3", "scheme": "unstructured", "sparsity": 0.8},
        {"match": "15", "scheme": "bcr:4x8", "sparsity": 0.8},
    ]
    recipe = {
        "method": "gradual", "epochs": {"sparsify": 4, "recover": 1}, "bcr": "column-row", "gradual": {"updates": 4},
        "layers": rules,
    }  # fmt: skip
    pruner = Pruner(network, recipe, steps_per_epoch=4)
    found: dict[str, list[float]] = {"3.weight": [0.0], "15.weight": [0.0]}

    def after(step: int) -> None:
        for name, mask in pruner.masks.items():
            found[name].append(1 - mask.mean())
        if step == 10:
            again = Pruner(network, recipe, steps_per_epoch=4)
            again.load_state_dict(pruner.state_dict())
            assert all(np.array_equal(again.masks[name], mask) for name, mask in pruner.masks.items())

    train(network, 20, sgd(network), pruner, after=after)
    for name, values in found.items():
        assert all(after >= before - 0.01 for before, after in pairwise(values)), (name, values)
        assert values[-1] == pytest.approx(0.8, abs=0.02) and len({round(value, 2) for value in values}) > 5


def test_a_start_above_the_goal_is_the_goal() -> None:
    network = trained()
    recipe = {"method": "gradual", "gradual": {"start": 0.9}, "layers": RULES}
    pruner = Pruner(network, recipe, steps_per_epoch=8)
    assert 1 - pruner.masks["3.weight"].mean() == pytest.approx(0.8, abs=1e-3)


class Straight(torch.autograd.Function):
    """Masked forward, unmasked gradient."""

    @staticmethod
    def forward(ctx: object, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Reference(nn.Module):
    """cnn() whose layers keep dense weights and mask them as they are used."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network
        self.masks: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        for index, module in enumerate(self.network):
            name = f"{index}.weight"
            if name in self.masks:
                weight = Straight.apply(module.weight, self.masks[name])
                x = (
                    functional.conv2d(x, weight, module.bias, padding=1)
                    if isinstance(module, nn.Conv2d)
                    else functional.linear(x, weight, module.bias)
                )
            else:
                x = module(x)
        return x


@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_regrowth_is_straight_through(optimiser: str) -> None:
    """Without weight decay, which ours takes from masked weights: those that are dropped keep their size."""

    def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
        if optimiser == "adam":
            return torch.optim.Adam(network.parameters(), lr=5e-3)
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    torch.set_num_threads(1)
    ours, reference = trained().double(), Reference(trained().double())  # rounding mustn't decide ranks
    recipe = {
        "method": "gradual", "epochs": {"sparsify": 3, "recover": 0},
        "gradual": {"updates": 4, "regrowth": True}, "layers": RULES,
    }  # fmt: skip
    pruner = Pruner(ours, recipe, steps_per_epoch=8)
    came_back = 0
    masks_of_reference: dict[str, Tensor] = {}

    def update(step: int) -> None:
        nonlocal came_back
        if step % 2:
            return
        sparsity = 0.8 * (1 - (1 - step / 24) ** 3)
        for name in ("3.weight", "15.weight"):
            weight = dict(reference.network.named_parameters())[name].detach().numpy()
            mask = torch.from_numpy(project(weight, Scheme("unstructured"), sparsity)).double()
            came_back += int((mask > masks_of_reference.get(name, mask)).sum())
            masks_of_reference[name] = mask
        reference.masks = dict(masks_of_reference)

    train(reference, 22, optimizer_of(reference), after=update)
    train(ours, 22, optimizer_of(ours), pruner)
    assert came_back > 10, "weights come back, or this tests nothing"
    for name, mask in masks_of_reference.items():
        np.testing.assert_array_equal(pruner.masks[name], mask.numpy() > 0)
        masked = dict(reference.network.named_parameters())[name].detach() * mask
        torch.testing.assert_close(dict(ours.named_parameters())[name].detach(), masked, rtol=1e-9, atol=1e-12)


def test_without_regrowth_nothing_comes_back() -> None:
    network = trained()
    recipe = {"method": "gradual", "epochs": {"sparsify": 2}, "gradual": {"updates": 3}, "layers": RULES}
    pruner = Pruner(network, recipe, steps_per_epoch=8)
    before: dict[str, np.ndarray] = {}

    def after(step: int) -> None:
        for name, mask in pruner.masks.items():
            assert not (mask & ~before.get(name, mask)).any(), step
            before[name] = mask

    train(network, 20, adamw(network), pruner, after=after)


def test_regrowth_survives_a_move_to_float64() -> None:
    network = cnn()
    recipe = {"method": "gradual", "epochs": {"sparsify": 2}, "gradual": {"regrowth": True}, "layers": RULES}
    pruner = Pruner(network, recipe, steps_per_epoch=4)
    train(network, 4, torch.optim.SGD(network.parameters(), lr=0.02), pruner)
    network.double()
    train(network, 8, torch.optim.SGD(network.parameters(), lr=0.02), pruner, start=4)
    assert next(network.parameters()).dtype == torch.float64
    assert all(abs(1 - mask.mean() - 0.8) < 1e-3 for mask in pruner.masks.values())
