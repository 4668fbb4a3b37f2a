"""The exact choice against all choices there are, and what it says where there is none."""

import re
from itertools import product

import numpy as np
import pytest

from prunus.errors import BudgetError
from prunus.mapping.knapsack import at_least, at_most, choose, fastest, least_loss, sparsest, undominated
from prunus.mapping.space import LayerSpace, Option, Space


def space(seed: int, layers: int = 4, options: int = 6) -> Space:
    """Random times and losses, dense the slowest and without loss."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(layers):
        found = [Option(None, 0.0, float(rng.uniform(2, 3)), True, 0.0)]
        found += [
            Option("unstructured", float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.1, 2)), True, float(rng.random()))
            for _ in range(options)
        ]
        made.append(LayerSpace(f"conv{i}", f"w{i}", "Conv", (8 << i, 8, 3, 3), 1000, tuple(found)))
    return Space(tuple(made), 0.5)


def losses(found: Space, mapping: tuple[int, ...]) -> float:
    return sum(option.loss or 0.0 for option in found.chosen(mapping))


def all_of(found: Space) -> list[tuple[int, ...]]:
    return list(product(*(range(len(layer.options)) for layer in found.layers)))


@pytest.mark.parametrize("seed", range(5))
def test_as_good_as_the_best_of_all(seed: int) -> None:
    found = space(seed)
    for budget in (0.35, 0.5, 0.8):
        ms = budget * found.dense_ms
        mapping = least_loss(found, ms)
        assert found.ms(mapping) <= ms * (1 + 1e-6)
        best = min(losses(found, m) for m in all_of(found) if found.ms(m) <= ms)
        assert losses(found, mapping) == pytest.approx(best, rel=1e-5)
    allowed = 0.8
    least = min(found.ms(m) for m in all_of(found) if losses(found, m) <= allowed)
    assert found.ms(fastest(found, allowed)) == pytest.approx(least, rel=1e-5)


def test_sparsity_counts_weights() -> None:
    found = space(1)
    sizes = np.array([np.prod(layer.shape) for layer in found.layers])

    def zeros(mapping: tuple[int, ...]) -> float:
        return float(sizes @ [option.sparsity for option in found.chosen(mapping)]) / float(sizes.sum())

    mapping = sparsest(found, 0.6)
    best = min(losses(found, m) for m in all_of(found) if zeros(m) >= 0.6)
    assert zeros(mapping) >= 0.6 - 1e-6 and losses(found, mapping) == pytest.approx(best, rel=1e-5)
    with pytest.raises(BudgetError, match=r"sparsity 0.99: the most .* 0\.\d+"):
        sparsest(found, 0.99)


def test_generous_budgets_leave_all_dense() -> None:
    found = space(2)
    assert least_loss(found, found.dense_ms) == (0,) * 4
    assert fastest(found, 0.0) == (0,) * 4
    with pytest.raises(BudgetError, match="loss -1: expected 0"):
        fastest(found, -1)


def test_a_budget_out_of_reach_names_what_bounds_it() -> None:
    stuck = LayerSpace("stem", "w", "Conv", (8, 3, 3, 3), 1000, (Option(None, 0.0, 5.0, True, 0.0),))
    found = Space((stuck, *space(3).layers), 0.5)
    with pytest.raises(
        BudgetError, match=r"budget 5 ms: the best reachable is [\d.]+ ms, [\d.]+ times.*stem 5 ms dense"
    ):
        least_loss(found, 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_that_is_named_can_be_had(seed: int) -> None:
    found = space(seed)
    with pytest.raises(BudgetError) as told:
        least_loss(found, 0.1)
    ms, speed = map(float, re.findall(r"reachable is ([\d.]+) ms, ([\d.]+) times", str(told.value))[0])
    least_loss(found, ms)
    least_loss(found, found.dense_ms / speed)
    with pytest.raises(BudgetError) as told:
        sparsest(found, 0.99)
    sparsest(found, float(re.findall(r"reach is ([\d.]+)", str(told.value))[0]))


def test_rounding_keeps_to_its_side() -> None:
    assert [at_least(x) for x in (2.95114, 0.0012341, 123456.0, 2.5, 0.3, 0.0)] == [
        "2.952", "0.001235", "1.235e+05", "2.5", "0.3", "0",
    ]  # fmt: skip
    assert [at_most(x, 3) for x in (4.039, 4.03, 99.99, 0.95)] == ["4.03", "4.03", "99.9", "0.95"]


def test_options_that_others_beat_are_left_out() -> None:
    assert undominated([1.0, 2.0, 0.5, 1.0], [1.0, 0.5, 3.0, 1.0]) == [0, 1, 2]
    assert choose([[1.0, 1.0], [3.0, 2.0]], [[1.0, 1.0], [0.0, 9.0]], 100.0) == (0, 1)
