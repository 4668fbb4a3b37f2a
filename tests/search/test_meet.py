"""A budget of milliseconds is met as measured, though layers alone told otherwise."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.errors import ShrinkError
from prunus.search.costs import Latency, Times, macs
from prunus.search.meet import CLOSE, calibrate, meet, share_of, steps_down
from prunus.search.pas import WidthSearch
from prunus.training.shrink.follow import find_groups
from tests.training.shrink.nets import IMAGE, block


def linear(net: nn.Module) -> Latency:
    """Layers take a millisecond for 10^5 multiply-adds."""
    groups = find_groups(net, IMAGE)
    times = []
    for call in groups.calls:
        o, i, *kernel = groups.shapes[call.weight]
        ms = 1e-5 * call.positions * float(np.prod(kernel))
        times.append(Times(np.array([0.0, o]), np.array([0.0, i]), np.array([[0, 0], [0, ms * o * i]])))
    return Latency(groups, times)


def measured(model: nn.Module) -> float:
    """Something else: a part that never goes, and not in proportion."""
    return 20 + (1e-5 * macs(find_groups(model, IMAGE)).whole) ** 0.9


def made(round_to: int = 1) -> tuple[WidthSearch, Latency, float]:
    net = nn.Sequential(block(3, 32), block(32, 48), block(48, 32), nn.Conv2d(32, 4, 1))
    of = linear(net)
    of.scale(measured(net) / of.whole)
    budget_ms = 0.6 * of.whole
    return WidthSearch(net, IMAGE, lambda _: of, share_of(of, budget_ms), 10), of, budget_ms


def test_met_as_measured() -> None:
    search, of, budget_ms = made()
    rounds = meet(search, of, budget_ms, measured)
    assert abs(rounds[0].ms / budget_ms - 1) < 0.03
    assert max(abs(one.ms / budget_ms - 1) for one in rounds) > 0.05, "the first trial can't have met it"
    assert not search.network.gates.frozen


def test_met_in_steps_of_channels() -> None:
    search, of, budget_ms = made()
    rounds = meet(search, of, budget_ms, measured, steps=(8,))
    assert abs(rounds[0].ms / budget_ms - 1) < 0.08  # a step may be worth that
    assert all(int(rounds[0].keep[members].sum()) % 8 == 0 for members in search.groups.bundles)


def test_met_in_steps_as_coarse_as_can_be() -> None:
    search, of, budget_ms = made()
    rounds = meet(search, of, budget_ms, measured, steps=steps_down(16))
    assert abs(rounds[0].ms / budget_ms - 1) <= CLOSE
    widths = [[int(one.keep[members].sum()) for members in search.groups.bundles] for one in rounds]
    assert any(all(width % 16 == 0 for width in row) for row in widths), "the coarsest first"
    assert steps_down(16) == (16, 8, 4, 2, 1) and steps_down(1) == (1,)


def test_calibration_moves_the_budget() -> None:
    search, of, budget_ms = made()
    keep = search.trimmed()
    calibrate(search, of, budget_ms, keep, 2 * budget_ms)
    assert search.budget == pytest.approx(budget_ms / of.whole)
    assert search.found(keep).cost > search.budget


def test_a_budget_that_is_met_already() -> None:
    _, of, _ = made()
    with pytest.raises(ShrinkError, match=rf"budget 1e\+06 ms: the whole network takes {of.whole:.4g} ms"):
        share_of(of, 1e6)


def test_the_best_of_what_was_measured_where_more_cannot_be_tried() -> None:
    """A network that takes so long whatever its widths that the next trial would have to be below one channel."""
    search, of, budget_ms = made()
    rounds = meet(search, of, budget_ms, lambda model: 1e3)
    assert rounds and rounds[0].ms == 1e3


def test_a_search_goes_on_resting_after_its_steps() -> None:
    search, _, _ = made()
    search.n_steps, seen = 20, list[torch.Tensor]()
    for _ in range(26):
        (search.network(IMAGE).square().mean() + search.penalty()).backward()
        search.step()
        seen.append(search.network.gates.b.detach().clone())
    assert all(torch.equal(b, seen[20]) for b in seen[20:]), "beyond the last step b moves away from the task"
