"""ADMM against a few lines of numpy."""

import numpy as np
import pytest
import torch

from prunus.sparsity.project import project
from prunus.sparsity.scheme import parse
from prunus.training.pruner import Pruner
from tests.training.networks import cnn, sgd, train, trained

TEXT, SPARSITY = "bcr:8x16", 0.75


def pruner_of(network: torch.nn.Module, steps_per_epoch: int = 6, **settings: object) -> Pruner:
    recipe = {
        "method": "admm", "epochs": {"sparsify": 2, "recover": 0}, "admm": settings,
        "layers": [{"match": "re:^(3|15)$", "scheme": TEXT, "sparsity": SPARSITY}],
    }  # fmt: skip
    return Pruner(network, recipe, steps_per_epoch=steps_per_epoch)


@pytest.mark.parametrize("one_sided", [False, True])
def test_penalty_and_updates(one_sided: bool) -> None:
    """Two stages of three updates, one every other step; weights are moved at random in between."""
    network = cnn()
    rho = (0.01, 0.1)
    pruner = pruner_of(network, rho=rho, updates=3, one_sided=one_sided)
    names = ("3.weight", "15.weight")
    weights = dict(network.named_parameters())
    u = {name: np.zeros(weights[name].shape, np.float32) for name in names}
    z = {name: np.zeros(0) for name in names}

    def projected(array: np.ndarray) -> np.ndarray:
        return np.where(project(array, parse(TEXT), SPARSITY), array, 0)

    for name in names:
        z[name] = projected(weights[name].detach().numpy())
    rng = np.random.default_rng(0)
    for step in range(1, 13):
        stage = min((step - 1) // 2 // 3, 1)
        wanted, gradients = 0.0, {}
        for name in names:
            weight = weights[name].detach().numpy()
            distance = weight - z[name] + u[name]
            if one_sided:
                distance = distance * (z[name] == 0)
            wanted += rho[stage] / 2 * float(np.square(distance.astype(np.float64)).sum())
            gradients[name] = rho[stage] * distance
        penalty = pruner.penalty()
        assert isinstance(penalty, torch.Tensor) and penalty.ndim == 0
        assert float(penalty.detach()) == pytest.approx(wanted, rel=1e-4), step
        found = torch.autograd.grad(penalty * 2, [weights[name] for name in names])
        for name, gradient in zip(names, found, strict=True):
            np.testing.assert_allclose(gradient.numpy(), 2 * gradients[name], rtol=1e-4, atol=1e-7)
        with torch.no_grad():
            for name in names:
                weights[name] += torch.from_numpy(rng.normal(0, 0.02, weights[name].shape).astype(np.float32))
        pruner.step()
        if step % 2 == 0 and step < 12:
            for name in names:
                weight = weights[name].detach().numpy()
                if step == 6:  # a new stage: Z and U begin anew
                    u[name][:] = 0
                    z[name] = projected(weight)
                else:
                    total = weight + u[name]
                    z[name] = projected(total)
                    u[name] = total - z[name]
    assert pruner.penalty() == 0.0 and pruner.phase == "recover"
    for name in names:  # the support of the weights' projection
        assert abs(1 - pruner.masks[name].mean() - SPARSITY) < 0.02
        np.testing.assert_array_equal(weights[name].detach().numpy() != 0, pruner.masks[name])


def test_weights_come_near_their_projection() -> None:
    """Which plain training doesn't do: that is what ADMM is for."""

    def lost(network: torch.nn.Module) -> float:
        weight = dict(network.named_parameters())["15.weight"].detach().numpy()
        mask = project(weight, parse(TEXT), SPARSITY)
        return float(np.square(weight[~mask]).sum() / np.square(weight).sum())

    network, plain = trained(), trained()
    pruner = pruner_of(network, steps_per_epoch=33)
    train(network, 65, sgd(network), pruner)
    train(plain, 65, sgd(plain))
    assert pruner.phase == "sparsify"
    assert lost(network) < 0.5 * lost(plain)


def test_more_updates_than_steps() -> None:
    network = trained()
    pruner = pruner_of(network, steps_per_epoch=1)
    train(network, 2, sgd(network), pruner)
    assert pruner.phase == "recover"
    assert all(abs(1 - mask.mean() - SPARSITY) < 0.02 for mask in pruner.masks.values())


def test_few_channels_of_n_of_m() -> None:
    """16 filters of one channel keep half of their weights, not all of them."""
    network = cnn()
    recipe = {"method": "admm", "epochs": {"sparsify": 1, "recover": 0}, "layers": [{"match": "0", "scheme": "2:4"}]}
    pruner = Pruner(network, recipe, steps_per_epoch=4)
    train(network, 4, sgd(network), pruner)
    assert 1 - pruner.masks["0.weight"].mean() == pytest.approx(0.5, abs=0.02)
