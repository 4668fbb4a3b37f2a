"""How many groups of each bundle stay: by a ratio each, or by what all of them may cost together.

By MACs, groups go one after the other: always those that take the least share of their bundle's worth with them for the
multiply-adds they save. A network passes on the product of what its layers keep, so shares are compared, not sums, and
count once for each layer that makes them; a depthwise one makes none.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunus.errors import ShrinkError
from prunus.runtime.cpu import describe
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.importance import Floats, best
from prunus.training.shrink.remove import shrink
from prunus.training.shrink.trace import Inputs

Widths = NDArray[np.int64]
LEAST_SHARE = 0.1  # of a bundle that a budget leaves at least: the network would be cut in two
TOO_COARSE = 0.01  # of the multiply-adds: a step that saves so much too much is left to others, if they can
PAYS = 0.01  # a bundle stays as wide as it was unless the network gets faster by this share


def lanes(target: str | None = None) -> int:
    """The float32 lanes of a vector of a target, or of this CPU: 16 with AVX-512, 8 with AVX2, else 4."""
    target = target or describe().best_target or ""
    return 16 if "avx512" in target else 8 if "avx2" in target else 4


@final
@dataclass(frozen=True, eq=False)
class Cost:
    """Multiply-adds as a function of the bundles' widths, for groups that are alike in each."""

    positions: NDArray[np.float64]
    fixed: NDArray[np.float64]  # [calls, dimension of filters or channels]: positions that always stay
    counts: NDArray[np.float64]  # [calls, dimension, bundles]: positions of a group

    def __call__(self, widths: Sequence[int] | Widths) -> float:
        """Of the whole network."""
        sizes = self.fixed + self.counts @ np.asarray(widths, np.float64)
        return float((self.positions * sizes[:, 0] * sizes[:, 1]).sum())


def cost_of(groups: Groups) -> Cost:
    """The network's, on the example inputs."""
    n_bundles, positions, fixed, counts = len(groups.bundles), list[float](), list[list[float]](), list[Floats]()
    for call in groups.calls:
        shape = groups.shapes[call.weight]
        positions.append(call.positions * math.prod(shape[2:]))
        at, whole = np.zeros((2, n_bundles)), [0.0, 0.0]
        for dim in (0, 1):
            key = (call.weight, dim)
            if key in groups.ties:
                at[dim] = [groups.counts[key][members[0]] for members in groups.bundles]
                whole[dim] = float((groups.ties[key] < 0).sum())
            else:
                whole[dim] = float(shape[dim])
        fixed.append(whole)
        counts.append(at)
    shape = (len(counts), 2, n_bundles)
    return Cost(np.array(positions), np.array(fixed).reshape(shape[:2]), np.array(counts).reshape(shape))


def full(groups: Groups) -> Widths:
    """The widths as they are."""
    return np.array([len(members) for members in groups.bundles], np.int64)


def strides(groups: Groups, round_to: int) -> Widths:
    """By how many groups each bundle shrinks, for layers of multiples of `round_to` channels.

    Bundles narrower than twice that go by a half of it, a quarter, and so on.
    """
    found = []
    for members in groups.bundles:
        counts = [int(groups.counts[key][members[0]]) for key in groups.filters if key in groups.counts]
        each = min((count for count in counts if count), default=1)
        step = round_to // math.gcd(round_to, each)
        while step > 1 and step * 2 > len(members):
            step //= 2
        found.append(step)
    return np.array(found, np.int64)


def by_ratio(groups: Groups, sparsity: Mapping[int, float], round_to: int = 1) -> Widths:
    """The nearest multiples; at least one. sparsity: by the number of the bundle; others stay whole."""
    widths, steps = full(groups), strides(groups, round_to)
    for bundle, share in sparsity.items():
        n, step = int(widths[bundle]), int(steps[bundle])
        if share > 0:
            widths[bundle] = min(n, max(step, math.floor(n * (1 - share) / step + 0.5) * step))
    return widths


def by_macs(groups: Groups, worth: Floats, macs: float, free: Sequence[int] | None = None, round_to: int = 1) -> Widths:
    """The widths that keep the share `macs` of the multiply-adds, at most, and as nearly as their steps permit.

    worth: of each group. free: the bundles that may shrink; all, if it isn't said.
    Raises ShrinkError: the free ones can't save that much; says how little is possible.
    """
    cost, widths, steps = cost_of(groups), full(groups), strides(groups, round_to)
    free = range(len(widths)) if free is None else free
    ascending = [np.sort(worth[members]) + 1e-12 for members in groups.bundles]
    sums = [np.concatenate([[0.0], np.cumsum(values)]) for values in ascending]
    layers = [max(n_layers(groups, members), 1) for members in groups.bundles]
    least = np.maximum(steps, np.ceil(full(groups) * LEAST_SHARE / steps).astype(np.int64) * steps)
    budget, now = macs * cost(widths), cost(widths)
    passed, banned, coarse = list[int](), set[int](), list[Widths]()
    while now > budget:
        moves = []
        for bundle in sorted(set(free) - banned):
            narrower = _below(int(widths[bundle]), int(steps[bundle]))
            if narrower < least[bundle]:
                continue
            trial = widths.copy()
            trial[bundle] = narrower
            saved = now - cost(trial)
            n, total = len(ascending[bundle]), sums[bundle]
            lost = (total[n - narrower] - total[n - widths[bundle]]) / (total[-1] - total[n - widths[bundle]])
            if saved > 0:
                moves.append((lost * layers[bundle] / saved, bundle, narrower))
        if not moves and coarse:
            widths = max(coarse, key=cost)
            break
        if not moves:
            share = now / cost(full(groups))
            raise ShrinkError(f"macs {macs:g}: can't be reached, expected at least {math.ceil(share * 1e4) / 1e4:g}")
        _, bundle, narrower = min(moves)
        trial = widths.copy()
        trial[bundle] = narrower
        if cost(trial) < budget - TOO_COARSE * cost(full(groups)):
            coarse.append(trial)
            banned.add(bundle)
            continue
        widths, now = trial, cost(trial)
        passed.append(bundle)
    return _widen(cost, widths, steps, budget, reversed(passed), full(groups))


def n_layers(groups: Groups, members: NDArray[np.int64]) -> int:
    """How many layers make the channels of a bundle, not counting those that keep channels apart."""
    apart = {name for name in groups.widths if (name, 1) not in groups.ties}
    keys = [key for key in groups.filters if key in groups.counts and key[0] not in apart]
    return sum(bool(groups.counts[key][members[0]]) for key in keys)


def roll_back(
    model: nn.Module,
    example_inputs: Inputs,
    groups: Groups,
    worth: Floats,
    widths: Widths,
    latency: Callable[[nn.Module], float],
) -> Widths:
    """Widths of which each one pays: a bundle whose shrinking doesn't make the network faster stays as it was.

    latency: seconds, or any other unit, of a network; called once, and then once for each bundle that shrinks,
    those that save least first.
    """
    cost, whole = cost_of(groups), full(groups)

    def measure(trial: Widths) -> float:
        return latency(shrink(model, example_inputs, best(groups, worth, trial), groups))

    def wider(bundle: int) -> Widths:
        trial = widths.copy()
        trial[bundle] = whole[bundle]
        return trial

    shrunk = [bundle for bundle in range(len(widths)) if widths[bundle] < whole[bundle]]
    order = sorted(shrunk, key=lambda bundle: (cost(wider(bundle)), bundle))
    now = measure(widths)
    for bundle in order:
        trial = wider(bundle)
        time = measure(trial)
        if time * (1 - PAYS) <= now:
            widths, now = trial, time
    return widths


def _below(width: int, step: int) -> int:
    """The next multiple."""
    return (width - 1) // step * step


def _widen(cost: Cost, widths: Widths, steps: Widths, budget: float, order: Iterable[int], whole: Widths) -> Widths:
    """Take back what the last steps saved too much, where it fits."""
    for bundle in dict.fromkeys(order):
        while widths[bundle] < whole[bundle]:
            trial = widths.copy()
            trial[bundle] = min(int(whole[bundle]), int(widths[bundle] // steps[bundle] + 1) * int(steps[bundle]))
            if cost(trial) > budget:
                break
            widths = trial
    return widths
