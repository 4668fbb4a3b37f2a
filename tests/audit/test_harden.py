"""A fine-tune against universal perturbations makes them weaker, and no zero goes."""

import torch

from prunus.audit.attacks.steps import Pgd
from prunus.audit.ball import Ball
from prunus.audit.harden import HardenPlan, harden
from prunus.audit.problem import Problem
from prunus.audit.tasks import draw
from prunus.audit.victims import of_module
from tests.audit.toy import CLASSES, images, trained

EPS = 0.12  # two quarters differ by 0.3


def success(network: torch.nn.Module) -> float:
    found = draw(images(160, 3), 4, CLASSES, 2, 16, torch.Generator().manual_seed(0))
    problem = Problem(of_module(network, (1, 8, 8)), found.x, found.y, Ball(EPS))
    moved = problem.ball.add(found.held_x, Pgd()(problem, 10)[-1])
    return float((problem.victim.classify(moved.flatten(0, 1)) != found.held_y.flatten()).float().mean())


def test_weaker_perturbations_and_the_same_zeros() -> None:
    network = trained()
    with torch.no_grad():
        for layer in (network[0], network[2], network[5]):
            weight = layer.weight
            weight.mul_(weight.abs() > weight.abs().quantile(0.5))
    before, zeros = success(network), [parameter == 0 for parameter in network.parameters()]
    harden(network, images(512, 5), HardenPlan(Ball(EPS), epochs=25, rate=5e-3))
    for zero, parameter in zip(zeros, network.parameters(), strict=True):
        if parameter.ndim > 1:
            assert not parameter[zero].any() and parameter[~zero].all()
    data = images(160, 3)
    assert (network(data.x).argmax(1) == data.y).float().mean() > 0.9
    assert success(network) < 0.7 * before, (before, success(network))
