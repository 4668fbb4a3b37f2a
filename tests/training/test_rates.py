"""Learning rates by step."""

import pytest
import torch

from prunus.training.rates import factor
from prunus.training.standard import Optimizer


def factors(settings: Optimizer, n: int = 40, per_epoch: int = 10) -> list[float]:
    return [factor(settings, step, n, per_epoch) for step in range(n)]


def test_cosine_falls_from_the_whole_rate_to_none() -> None:
    got = factors(Optimizer(schedule="cosine"))
    assert got[0] == 1 and got[20] == pytest.approx(0.5) and 0 < got[-1] < 0.01
    assert got == sorted(got, reverse=True)


def test_warmup_rises_evenly() -> None:
    got = factors(Optimizer(schedule="constant", warmup=0.5))
    assert got[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert set(got[5:]) == {1.0}


def test_one_cycle_is_torch_s() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40, cycle_momentum=False)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"] / 0.1)
        optimizer.step()
        if len(expected) < 40:
            schedule.step()
    assert factors(Optimizer(schedule="one-cycle")) == pytest.approx(expected)
