"""Pruning-as-Search from end to end: where the middle is far too wide it does better than one share for all layers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.search.branches import Branches
from prunus.search.choose import magnitude, uniform
from prunus.search.costs import macs
from prunus.search.pas import WidthSearch

BUDGET, STEPS = 0.2, 100
Pairs = tuple[Tensor, Tensor]


def noisy_pictures(seed: int) -> Pairs:
    """Twelve pictures of 3x8x8 pixels of noise, drowned in more of it."""
    pictures = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    chance = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 12, (2000,), generator=chance)
    return pictures[y] + 2.5 * torch.randn(2000, 3, 8, 8, generator=chance), y


def network() -> nn.Sequential:
    """Six filters, forty-eight, and six again."""
    return nn.Sequential(
        Branches(3, 6, 2), nn.ReLU(), Branches(6, 48, 1), nn.ReLU(), Branches(48, 6, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 12),
    )  # fmt: skip


def fit(
    model: nn.Module, parameters: list[nn.Parameter], rate: float, steps: int, seed: int,
    search: WidthSearch | None = None,
) -> None:  # fmt: skip
    optimizer, chance = torch.optim.SGD(parameters, rate, momentum=0.9), torch.Generator().manual_seed(seed)
    x, y = noisy_pictures(1)
    model.train()
    for _ in range(steps):
        batch = torch.randint(0, len(x), (64,), generator=chance)
        loss = functional.cross_entropy(model(x[batch]), y[batch])
        if search is not None:
            loss = loss + search.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if search is not None:
            search.step()
    model.eval()


def found(seed: int, choose: Callable[[WidthSearch], np.ndarray] | None) -> tuple[WidthSearch, float]:
    """A search (or a choice) and its accuracy; as many steps with and without a search."""
    torch.manual_seed(seed)
    model, (x, y) = network(), noisy_pictures(2)
    fit(model, list(model.parameters()), 0.05, 2 * STEPS, seed)
    search = WidthSearch(model, x[:2], macs, BUDGET, STEPS)
    if choose is None:
        fit(search.network, search.network.weights(), 0.05, STEPS, seed + 1, search)
        search.finish()
    else:
        search.freeze(choose(search))
        fit(search.network, search.network.weights(), 0.02, STEPS, seed + 1)
    fit(search.network, search.network.weights(), 0.02, STEPS, seed + 2)
    with torch.no_grad():
        return search, float((search.network(x).argmax(1) == y).float().mean())


def test_better_than_one_share_for_all_and_exact() -> None:
    def same_share(search: WidthSearch) -> np.ndarray:
        return uniform(search.groups, magnitude(search.merged(), search.groups), search.cost, BUDGET)

    better = []
    for seed in range(2):
        search, accuracy = found(seed, None)
        _, other = found(seed, same_share)
        better.append(accuracy - other)
        left = search.found(search.network.keep())
        assert 0.9 * BUDGET < left.cost <= BUDGET
        first, middle, last = (after for _, after in list(left.widths.values())[:3])
        assert middle < 0.4 * 48 and first + last >= 6, left.widths
        x = noisy_pictures(3)[0][:50]
        with torch.no_grad():
            masked, smaller = search.network(x), search.shrink()(x)
        assert float((masked - smaller).abs().max()) <= 1e-5 * float(masked.abs().max())
    assert float(np.mean(better)) > 0.01, better


class Block(nn.Module):
    """Two convolutions beside a stage that keeps its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Like x."""
        y: Tensor = functional.relu(self.second(functional.relu(self.first(x))) + x)
        return y


def test_a_stage_that_many_layers_read_is_not_starved() -> None:
    """A channel of the stage costs as much as one inside each block together; all matter alike for what they cost."""
    net = nn.Sequential(nn.Conv2d(3, 24, 3, 1, 1), *(Block(24) for _ in range(4)), nn.Conv2d(24, 4, 1))
    search = WidthSearch(net, torch.zeros(2, 3, 8, 8), macs, 0.3, STEPS)
    gates, groups, chance = search.network.gates, search.groups, torch.Generator().manual_seed(0)
    mask = torch.ones(groups.n, requires_grad=True)
    (costs,) = torch.autograd.grad(search.cost(mask), mask)
    assert costs.max() > 3 * costs.min(), "the stage's"
    for _ in range(STEPS):
        penalty = search.penalty()
        if penalty.requires_grad:
            penalty.backward()
        task = costs.sqrt() * torch.randn(groups.n, generator=chance)
        gates.b.grad = task if gates.b.grad is None else gates.b.grad + task
        search.step()
    keep = search.trimmed()
    shares = [float(keep[members].mean()) for members in groups.bundles]
    stage = int(np.argmax([float(costs[members].mean()) for members in groups.bundles]))
    assert shares[stage] > 0.6 * float(np.mean(shares)), shares
