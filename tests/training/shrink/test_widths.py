"""How wide layers become: ratios, budgets, multiples, and what doesn't pay."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from prunus.errors import ShrinkError
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.importance import best, importance
from prunus.training.shrink.remove import shrink
from prunus.training.shrink.widths import by_macs, by_ratio, cost_of, full, lanes, n_layers, roll_back, strides
from tests.training.shrink.nets import IMAGE, NETS, build


def worths(model: nn.Module, groups: Groups) -> NDArray[np.float64]:
    return importance(groups, {name: p.detach().numpy() for name, p in model.named_parameters()})


def test_importance_is_the_mean_over_coupled_filters() -> None:
    model, x = build("ResNet")
    with torch.no_grad():
        for n, weight in enumerate((model.stem[0].weight, model.body[0].conv2.weight)):
            weight.fill_(1.0 + 9 * n)  # scales of layers don't matter
            weight[3] = 0.0
        model.body[0].conv2.weight[5] = 0.0
    groups = find_groups(model, x)
    worth = worths(model, groups)[groups.bundles[0]]
    first, second = 16 / 15, 16 / 14
    wanted = np.full(16, (first + second) / 2)
    wanted[3], wanted[5] = 0, first / 2
    np.testing.assert_allclose(worth, wanted)
    kept = best(groups, worths(model, groups), full(groups) - np.eye(5, dtype=np.int64)[0] * 2)
    assert np.flatnonzero(~kept).tolist() == groups.bundles[0][[3, 5]].tolist()


def test_ties_go_to_the_lower_number() -> None:
    model, x = build("Vgg")
    groups = find_groups(model, x)
    kept = best(groups, np.ones(groups.n), full(groups) // 2)
    assert kept[groups.bundles[1]].tolist() == [True] * 16 + [False] * 16


@pytest.mark.parametrize("name", NETS)
def test_cost_is_that_of_the_smaller_network(name: str) -> None:
    model, x = build(name)
    groups = find_groups(model, x)
    cost, widths = cost_of(groups), np.maximum(full(groups) * 2 // 3, 1)
    keep = best(groups, worths(model, groups), widths)
    assert cost(full(groups)) == groups.macs()
    assert cost(widths) == groups.macs(keep) == find_groups(shrink(model, x, keep, groups), x).macs()


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("name", ["ResNet", "MobileNet"])
def test_a_budget_is_met(name: str, share: float) -> None:
    model, x = build(name)
    groups = find_groups(model, x)
    widths = by_macs(groups, worths(model, groups), share)
    found = cost_of(groups)(widths) / groups.macs()
    assert share - 0.02 <= found <= share
    assert (widths >= np.ceil(full(groups) * 0.1)).all()


def test_alike_layers_shrink_alike() -> None:
    model = nn.Sequential(*[nn.Conv2d(i, o, 3, 1, 1) for i, o in itertools.pairwise([3, *[32] * 6, 3])])
    groups = find_groups(model, IMAGE)
    widths = by_macs(groups, np.ones(groups.n), 0.5)
    assert abs(widths - widths[::-1]).max() <= 1 and widths.min() >= 16


def test_what_is_not_free_stays() -> None:
    model, x = build("ResNet")
    groups = find_groups(model, x)
    widths = by_macs(groups, worths(model, groups), 0.8, free=[1, 4])
    assert widths[[0, 2, 3]].tolist() == [16, 32, 32] and widths[1] < 16
    with pytest.raises(ShrinkError, match=r"macs 0\.1: can't be reached, expected at least 0\.\d+"):
        by_macs(groups, worths(model, groups), 0.1, free=[1])


@pytest.mark.parametrize("round_to", [4, 8, 16])
def test_widths_are_multiples(round_to: int) -> None:
    for name in NETS:
        model, x = build(name)
        groups = find_groups(model, x)
        steps = strides(groups, round_to)
        assert all(round_to % step == 0 and step <= max(n // 2, 1) for step, n in zip(steps, full(groups), strict=True))
        for widths in (
            by_macs(groups, worths(model, groups), 0.6, round_to=round_to),
            by_ratio(groups, dict.fromkeys(range(len(groups.bundles)), 0.4), round_to),
        ):
            shrunk = widths < full(groups)
            assert (widths[shrunk] % steps[shrunk] == 0).all() and (widths > 0).all() and shrunk.any()


def test_strides() -> None:
    model, x = build("MobileNet")
    groups = find_groups(model, x)
    # bundles of 16, 64, 16, 6 (of 4 channels each), 96, 24 and 8 (of 4 each) groups
    assert strides(groups, 16).tolist() == [8, 16, 8, 2, 16, 8, 4]
    assert strides(groups, 1).tolist() == [1] * 7
    assert [n_layers(groups, members) for members in groups.bundles] == [1, 2, 1, 2, 2, 1, 1]


def test_ratios_round_to_the_nearest() -> None:
    model, x = build("Vgg")
    groups = find_groups(model, x)
    assert by_ratio(groups, {0: 0.5, 1: 0.3, 3: 0.99}).tolist() == [8, 22, 32, 1]
    assert by_ratio(groups, {0: 0.5, 1: 0.3, 3: 0.99}, 8).tolist() == [8, 24, 32, 8]


def test_lanes_of_targets() -> None:
    assert [lanes(t) for t in ("x86-64-avx512-vnni", "x86-64-avx2", "aarch64-neon", "x86-64")] == [16, 8, 4, 4]
    assert lanes() in (4, 8, 16)


def test_what_does_not_pay_is_rolled_back() -> None:
    model, x = build("Vgg")
    groups = find_groups(model, x)
    widths, asked = full(groups) // 2, list[tuple[int, ...]]()

    def latency(smaller: nn.Module) -> float:
        """The second layer costs by steps of 20, the others by channels, but for the third one."""
        found = [smaller.features[n][0].out_channels for n in (0, 2, 4)] + [smaller.a.out_features]
        asked.append(tuple(found))
        return found[0] * 10 + (found[1] - 1) // 20 * 100 + found[3]

    found = roll_back(model, x, groups, worths(model, groups), widths, latency)
    assert found.tolist() == [8, 16, 32, 32]
    assert asked[0] == (8, 16, 16, 32) and len(asked) == 5


def test_what_many_layers_make_is_worth_more() -> None:
    model, x = build("ResNet")
    groups = find_groups(model, x)
    widths = by_macs(groups, np.ones(groups.n), 0.5)
    assert [n_layers(groups, members) for members in groups.bundles] == [2, 1, 1, 3, 1]
    assert widths[3] > widths[4] and widths[0] > widths[1]
