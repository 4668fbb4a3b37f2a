"""The learned optimiser: indifferent to resolution and order, kept in a file, better for having been trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunus.audit.attacks.steps import Learned
from prunus.audit.ball import Ball
from prunus.audit.meta import Ground, MetaPlan, meta_start, meta_train
from prunus.audit.optimiser import SEEN, SHIPPED, Optimiser, load, save
from prunus.audit.problem import Gradient, Problem
from prunus.audit.tasks import draw
from prunus.audit.victims import of_module
from prunus.errors import AuditError
from tests.audit.toy import images, trained

QUICK = MetaPlan(rounds=6, tasks=2, classes=(2,), shots=(2,), steps=6, cut=3)


@pytest.mark.parametrize("sees", SEEN)
def test_one_optimiser_serves_every_size(sees: str) -> None:
    torch.manual_seed(0)
    optimiser = Optimiser(sees)
    for shape in ((2, 1, 8, 8), (3, 3, 28, 28), (1, 12)):
        g = torch.randn(shape)
        delta = torch.zeros(shape)
        found, _ = optimiser.step(
            delta, Gradient(torch.zeros(shape[0], 1), g, g.abs()), optimiser.begin(delta), Ball(0.1)
        )
        assert found.shape == shape and found.abs().max() <= 0.1 and found.abs().sum() > 0


def test_plain_ones_permute_with_coordinates() -> None:
    torch.manual_seed(0)
    optimiser, order = Optimiser("plain"), torch.randperm(64)
    g = torch.randn(1, 64)

    def after(g: torch.Tensor) -> torch.Tensor:
        delta = torch.zeros_like(g)
        state = optimiser.begin(delta)
        for _ in range(3):
            delta, state = optimiser.step(delta, Gradient(torch.zeros(1, 1), g, g.abs()), state, Ball(0.1))
        return delta

    torch.testing.assert_close(after(g[:, order]), after(g)[:, order])


def test_tasks_do_not_see_each_other() -> None:
    g = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    optimiser = load()

    def after(g: torch.Tensor) -> torch.Tensor:
        delta = torch.zeros_like(g)
        return optimiser.step(delta, Gradient(torch.zeros(len(g), 1), g, g.abs()), optimiser.begin(delta), Ball(0.1))[0]

    torch.testing.assert_close(after(g)[1:2], after(g[1:2]))


def test_kept_in_a_file(tmp_path: Path) -> None:
    made = Optimiser("plain", 6, {"seed": "3"})
    save(made, tmp_path / "o.safetensors")
    found = load(tmp_path / "o.safetensors")
    assert (found.sees, found.hidden, found.about) == ("plain", 6, {"seed": "3"})
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), found.parameters(), strict=True))
    (tmp_path / "o.safetensors").write_bytes(b"nothing")
    with pytest.raises(AuditError, match=r"o\.safetensors: not a trained optimiser"):
        load(tmp_path / "o.safetensors")
    with pytest.raises(AuditError, match="no such file"):
        load(tmp_path / "p.safetensors")


def test_what_ships_says_how_it_was_made() -> None:
    shipped = load()
    assert SHIPPED.stat().st_size < 100_000
    assert {"made_by", "seed", "sources"} <= set(shipped.about)


@pytest.mark.slow
def test_trained_it_beats_its_beginning_and_is_the_same_again() -> None:
    ground = Ground(images(200, 1), (of_module(trained(), (1, 8, 8)),), (0.1, 0.25))
    first = meta_train([ground], replace(QUICK, rounds=30))
    again = meta_train([ground], replace(QUICK, rounds=30))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    found = draw(images(160, 3), 6, 4, 2, 16, torch.Generator().manual_seed(0))
    victim = of_module(trained(1), (1, 8, 8))
    problem = Problem(victim, found.x, found.y, Ball(0.2))

    def success(optimiser: Optimiser, steps: int) -> float:
        moved = problem.ball.add(found.held_x, Learned(optimiser)(problem, steps)[-1])
        return float((victim.classify(moved.flatten(0, 1)) != found.held_y.flatten()).float().mean())

    torch.manual_seed(0)
    untrained = Optimiser()
    assert success(first, 3) > success(untrained, 3) + 0.05
    assert success(first, 10) > 0.3


def test_judged_on_other_images_than_plain_l2o() -> None:
    ground = Ground(images(200, 1), (of_module(trained(), (1, 8, 8)),), (0.1, 0.25))
    held, fit = meta_train([ground], QUICK), meta_train([ground], replace(QUICK, judged="fit"))
    assert any(not torch.equal(a, b) for a, b in zip(held.parameters(), fit.parameters(), strict=True))
    with pytest.raises(AuditError, match="no sources"):
        meta_train([], QUICK)


def test_maml_learns_a_start_that_is_better_than_none() -> None:
    victim = of_module(trained(), (1, 8, 8))
    ground = Ground(images(200, 1), (victim,), (0.15, 0.25))
    start = meta_start([ground], replace(QUICK, rounds=20, steps=2))
    assert start.shape == (1, 1, 8, 8) and start.abs().max() <= 1 and start.abs().sum() > 0
    data, ball = images(160, 3), Ball(0.2)
    moved = ball.add(data.x[None], ball.project(start * ball.eps))[0]
    assert (victim.classify(moved) != data.y).float().mean() > 0.3
