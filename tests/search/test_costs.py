"""Costs: exact where they can be, gradients as differences, baselines within the budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.errors import ShrinkError
from prunus.search.branches import merge
from prunus.search.choose import bn_gamma, by_scores, cost, magnitude, rounded, uniform
from prunus.search.costs import Latency, Times, macs, weights
from prunus.search.pas import WidthSearch
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.widths import strides
from tests.search.test_gates import nets
from tests.training.shrink.nets import IMAGE, Basic, block

NETS = nets()


@pytest.mark.parametrize("name", sorted(NETS))
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_macs_are_those_of_the_smaller_network(name: str, seed: int) -> None:
    groups = find_groups(merge(NETS[name]), IMAGE)
    keep = np.random.default_rng(seed).random(groups.n) < 0.6
    of = macs(groups)
    assert cost(of, keep) * of.whole == pytest.approx(groups.macs(keep))


@pytest.mark.parametrize("make", [macs, weights])
def test_gradient(make: object) -> None:
    groups = find_groups(NETS["resnet"], IMAGE)
    of = make(groups)  # type: ignore[operator]
    mask = torch.rand(groups.n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: of(m), mask)


def test_weights() -> None:
    groups = find_groups(NETS["resnet"], IMAGE)
    counted = sum(m.weight.numel() for m in NETS["resnet"].modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert weights(groups).whole == counted


def test_latency_between_measured_widths() -> None:
    net = nn.Sequential(block(3, 8), nn.Conv2d(8, 4, 1))
    groups = find_groups(net, IMAGE)
    first = Times(np.array([2.0, 8.0]), np.array([3.0]), np.array([[1.0], [4.0]]))
    last = Times(np.array([4.0]), np.array([2.0, 8.0]), np.array([[0.5, 2.0]]))
    of = Latency(groups, [first, last], rest_ms=1.0)
    assert of.whole == pytest.approx(7.0)
    keep = np.arange(8) < 5
    assert cost(of, keep) * of.whole == pytest.approx(1 + 2.5 + 1.25)
    of.calibrate(torch.from_numpy(keep.astype(np.float32)), 9.5)
    assert of.whole == pytest.approx(14.0)
    mask = torch.full((8,), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: of(m), mask)


@pytest.mark.parametrize("budget", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("name", sorted(NETS))
def test_baselines_meet_budgets(name: str, budget: float) -> None:
    net, merged = NETS[name], merge(NETS[name])
    groups = find_groups(merged, IMAGE)
    of, worth = macs(groups), magnitude(merged, groups)
    for keep in (
        by_scores(groups, worth, of, budget), uniform(groups, worth, of, budget),
        by_scores(groups, bn_gamma(net, merged, groups), of, budget),
    ):  # fmt: skip
        assert budget * 0.93 <= cost(of, keep) <= budget
        assert all(keep[members].any() for members in groups.bundles)


def test_uniform_is_uniform() -> None:
    net = nn.Sequential(block(3, 20), block(20, 40), block(40, 20), nn.Conv2d(20, 2, 1))
    groups = find_groups(net, IMAGE)
    keep = uniform(groups, np.arange(groups.n, dtype=float), macs(groups), 0.3)
    shares = [keep[members].mean() for members in groups.bundles]
    assert max(shares) - min(shares) < 0.06


@pytest.mark.parametrize("name", sorted(NETS))
@given(seed=st.integers(0, 1000), budget=st.floats(0.4, 1.0))
@settings(max_examples=8, deadline=None)
def test_widths_in_steps(name: str, seed: int, budget: float) -> None:
    groups = find_groups(merge(NETS[name]), IMAGE)
    of, scores = macs(groups), np.random.default_rng(seed).random(groups.n)
    keep = rounded(groups, scores, by_scores(groups, scores, of, budget), of, budget, 4)
    assert cost(of, keep) <= budget
    for members, step in zip(groups.bundles, strides(groups, 4), strict=True):
        width = int(keep[members].sum())
        assert width and (width % step == 0 or width == len(members))
        assert scores[members][keep[members]].min() >= scores[members][~keep[members]].max(initial=-1)


def test_nothing_fits_between_steps() -> None:
    net = nn.Sequential(block(3, 16), block(16, 16), nn.Conv2d(16, 2, 1))
    groups = find_groups(net, IMAGE)
    of, scores = macs(groups), np.linspace(0, 1, groups.n)
    keep = rounded(groups, scores, by_scores(groups, scores, of, 0.6), of, 0.6, 8)
    for members in groups.bundles:
        wider = keep.copy()
        wider[members] = True
        assert keep[members].all() or cost(of, wider) > 0.6
    with pytest.raises(ShrinkError, match=r"budget 0\.01: can't be reached"):
        rounded(groups, scores, np.ones(groups.n, bool), of, 0.01, 8)


def test_scales_decide() -> None:
    net = nn.Sequential(block(3, 6), nn.Conv2d(6, 2, 1))
    net[0][1].weight.data = torch.tensor([1.0, 0.1, 2.0, -3.0, 0.2, 0.3])
    groups = find_groups(net, IMAGE)
    keep = by_scores(groups, bn_gamma(net, net, groups), macs(groups), 0.5)
    assert keep.tolist() == [True, False, True, True, False, False]


def test_the_search_meets_its_budget() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(block(3, 24), Basic(24, 24, 1), Basic(24, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(32, 4))  # fmt: skip
    search = WidthSearch(net, IMAGE, macs, 0.5, 80)
    optimizer = torch.optim.SGD(search.network.weights(), lr=0.02, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    search.network.train()
    for _ in range(80):
        x, y = torch.randn(8, 3, 16, 16, generator=generator), torch.randint(0, 4, (8,), generator=generator)
        loss = nn.functional.cross_entropy(search.network(x), y) + search.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step()
    assert len(search.history) == 80
    assert cost(search.cost, search.network.keep()) == pytest.approx(0.5, abs=0.1)  # before it is trimmed
    found = search.finish()
    assert 0.46 < found.cost <= 0.5  # a channel of a stage is worth 0.035
    assert float(search.penalty()) == 0
    smaller = search.shrink()
    assert macs(find_groups(smaller, IMAGE)).whole == round(found.cost * search.cost.whole)


def test_narrower_than_measured_is_never_slower() -> None:
    """Times that were measured; the first cell, gone on with in both directions, fell below zero and rose again."""
    net = nn.Sequential(block(3, 64), block(64, 64), nn.Conv2d(64, 2, 1))
    groups, whole = find_groups(net, IMAGE), np.array([8.0, 16.0, 64.0])
    ms = np.array([[0.17, 0.39, 1.0], [0.30, 0.46, 1.1], [1.0, 1.1, 4.0]])
    none = Times(np.array([2.0]), np.array([0.0, 64.0]), np.array([[0.0, 1e-9]]))
    of = Latency(groups, [Times(np.array([64.0]), np.array([3.0]), np.array([[0.0]])), Times(whole, whole, ms), none])

    def at(filters: int, channels: int) -> float:
        keep = np.zeros(groups.n, bool)
        keep[groups.bundles[0][:channels]] = True
        keep[groups.bundles[1][:filters]] = True
        return cost(of, keep) * of.whole

    grid = np.array([[at(filters, channels) for channels in (1, 2, 4, 7, 8, 9, 20)] for filters in (1, 3, 6, 8, 12)])
    assert (grid >= 0).all() and (np.diff(grid, axis=0) >= 0).all() and (np.diff(grid, axis=1) >= 0).all()
    assert at(8, 8) == pytest.approx(0.17) and at(12, 8) == pytest.approx(0.235)
