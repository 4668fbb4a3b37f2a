"""The exact choice: a multiple-choice knapsack over losses and times, as an integer programme.

One option per layer, the sum of one cost least, the sum of another within a limit. Losses of layers are added up, which
takes them as independent. Source: Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11; solved by
HiGHS through scipy.optimize.milp.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from prunus.errors import BudgetError
from prunus.mapping.space import LayerSpace, Option, Space

GAP = 1e-6  # relative, to which the optimum is proved
SLACK = 1e-9  # relative, of a limit: rounding isn't infeasible
NAMED = 3  # layers that a message names


def least_loss(space: Space, budget_ms: float) -> tuple[int, ...]:
    """The mapping of least loss whose predicted time is within the budget. Of options alike the first counts.

    Raises BudgetError: the budget can't be met; says what can, and what stands in the way.
    """
    times = [[option.ms for option in layer.options] for layer in space.layers]
    if (best := space.other_ms + sum(map(min, times))) > budget_ms * (1 + SLACK):
        raise BudgetError(_unreachable(space, best, budget_ms))
    return choose(_losses(space), times, budget_ms - space.other_ms)


def fastest(space: Space, budget: float) -> tuple[int, ...]:
    """The fastest mapping whose losses add up to no more than `budget`."""
    if budget < 0:
        raise BudgetError(f"loss {budget:g}: expected 0 or more")
    times = [[option.ms for option in layer.options] for layer in space.layers]
    return choose(times, _losses(space), budget)


def sparsest(space: Space, sparsity: float) -> tuple[int, ...]:
    """The mapping of least loss that takes at least this share of the weights of all layers that can be pruned.

    Raises BudgetError: they can't lose so many.
    """
    sizes = [layer.n_weights * (len(layer.options) > 1) for layer in space.layers]
    total = sum(sizes)
    kept = [
        [size * (1 - option.sparsity) for option in layer.options]
        for size, layer in zip(sizes, space.layers, strict=True)
    ]
    most = 1 - sum(map(min, kept)) / total if total else 0.0
    if sparsity > most + SLACK:
        raise BudgetError(f"sparsity {sparsity:g}: the most that these schemes reach is {at_most(most)}")
    return choose(_losses(space), kept, (1 - sparsity) * total)


def choose(costs: Sequence[Sequence[float]], uses: Sequence[Sequence[float]], limit: float) -> tuple[int, ...]:
    """One index per row, such that the costs' sum is least and the uses' sum is within `limit`, which it can be."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    rows = [undominated(cost, use) for cost, use in zip(costs, uses, strict=True)]
    columns = [(layer, index) for layer, kept in enumerate(rows) for index in kept]
    cost = np.array([costs[layer][index] for layer, index in columns])
    use = np.array([uses[layer][index] for layer, index in columns])
    one = csr_array(
        (np.ones(len(columns)), ([layer for layer, _ in columns], range(len(columns)))),
        shape=(len(rows), len(columns)),
    )
    scale = max(float(use.max(initial=0.0)), 1e-12)  # HiGHS's tolerances are absolute
    within = LinearConstraint(use[None, :] / scale, -np.inf, (limit + SLACK * abs(limit)) / scale)
    result = milp(
        cost / max(float(cost.max(initial=0.0)), 1e-12), integrality=np.ones(len(columns)), bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), within], options={"mip_rel_gap": GAP},
    )  # fmt: skip
    assert result.x is not None, f"an integer programme that has a solution: {result.message}"
    picked = {layer: index for (layer, index), x in zip(columns, result.x, strict=True) if x > 0.5}
    return tuple(picked[layer] for layer in range(len(rows)))


def undominated(costs: Sequence[float], uses: Sequence[float]) -> list[int]:
    """Indices, in order, of what nothing else is at least as good as in both; of equals the first."""
    order = sorted(range(len(costs)), key=lambda i: (uses[i], costs[i], i))
    kept, least = [], np.inf
    for index in order:
        if costs[index] < least:
            kept.append(index)
            least = costs[index]
    return sorted(kept)


def at_least(value: float, digits: int = 4) -> str:
    """A number in so many digits, rounded up: given as a budget, it can be met."""
    return _rounded(value, digits, math.ceil)


def at_most(value: float, digits: int = 4) -> str:
    """As `at_least`, rounded down."""
    return _rounded(value, digits, math.floor)


def _rounded(value: float, digits: int, whole: Callable[[float], int]) -> str:
    if not value:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    near = round(value / unit)
    steps = near if math.isclose(near, value / unit, rel_tol=SLACK) else whole(value / unit)
    return f"{steps * unit:.{digits}g}"


def _losses(space: Space) -> list[list[float]]:
    found = [[option.loss for option in layer.options] for layer in space.layers]
    assert all(loss is not None for row in found for loss in row), "every option has a loss"
    return [[float(loss or 0.0) for loss in row] for row in found]


def _unreachable(space: Space, best: float, budget_ms: float) -> str:
    """What bounds the time: the largest shares of what can't be helped."""
    shares = sorted(((_least(layer).ms, layer) for layer in space.layers), key=lambda pair: -pair[0])[:NAMED]
    named = ", ".join(
        f"{layer.name} {ms:.4g} ms {'dense' if _least(layer).scheme is None else 'as ' + str(_least(layer).scheme)}"
        for ms, layer in shares
    )
    speed = f"{at_most(space.dense_ms / best, 3)} times as fast as dense" if best else "no time"
    return (
        f"budget {budget_ms:.4g} ms: the best reachable is {at_least(best)} ms, {speed}; "
        f"bounded by {named}, and {space.other_ms:.4g} ms outside of layers"
    )


def _least(layer: LayerSpace) -> Option:
    return min(layer.options, key=lambda option: option.ms)
