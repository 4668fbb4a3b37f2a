"""REINFORCE against exhaustive search, and as if it had never been stopped."""

from pathlib import Path

import pytest

from prunus.errors import BudgetError, CheckpointError
from prunus.mapping.reinforce import Reinforce, search
from prunus.mapping.search import Mapping, Progress
from prunus.mapping.space import Space
from tests.mapping.spaces import additive, entangled, exhaustive, lost, space_of

SHORT = Reinforce(steps=6, samples=4, seed=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_as_good_as_exhaustive_search(seed: int) -> None:
    """Within 5 % of what the best of 10,000 mappings costs, where losses don't add up; from the one that is the best if
    they did."""
    space = space_of(seed)
    accuracy, budget = entangled(space), space.dense_ms / 2
    start = exhaustive(space, additive(space), budget)
    best = exhaustive(space, accuracy, budget)
    found = search(space, accuracy, budget, start=start.mapping)
    assert found.ms <= budget
    assert lost(found) <= 1.05 * lost(best)
    assert found.accuracy == accuracy(found.mapping)


def test_without_a_start_it_learns() -> None:
    """What it samples at last is better than what it sampled at first."""
    space, tried = space_of(1), list[float]()
    accuracy = additive(space)

    def watched(mapping: Mapping) -> float:
        found = accuracy(mapping)
        tried.append(found - 0.1 * max(0.0, space.ms(mapping) / (space.dense_ms / 2) - 1))
        return found

    search(space, watched, space.dense_ms / 2, Reinforce(steps=100))
    assert sum(tried[-100:]) / 100 > sum(tried[:100]) / 100 + 0.005


def stopped_after(space: Space, n: int) -> "tuple[list[Mapping], object]":
    """An accuracy that is interrupted at its n-th mapping; and what was tried."""
    tried: list[Mapping] = []
    accuracy = additive(space)

    def call(mapping: Mapping) -> float:
        if len(tried) == n:
            raise KeyboardInterrupt
        tried.append(mapping)
        return accuracy(mapping)

    return tried, call


def test_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    space = space_of(0)
    budget = space.dense_ms / 2
    whole, call = stopped_after(space, 1000)
    expected = search(space, call, budget, SHORT, (1, 1, 1, 1))
    state = tmp_path / "folder" / "search.safetensors"
    first, call = stopped_after(space, 11)
    with pytest.raises(KeyboardInterrupt):
        search(space, call, budget, SHORT, (1, 1, 1, 1), state)
    rest, call = stopped_after(space, 1000)
    seen: list[Progress] = []
    assert search(space, call, budget, SHORT, (1, 1, 1, 1), state, seen.append) == expected
    assert first == whole[:11]
    assert rest[1:] == whole[9:]  # the start is tried again, and the step that was cut off
    assert str(seen[0]).startswith("mapping 8 of 24, best ")
    none, call = stopped_after(space, 1000)
    assert search(space, call, budget, SHORT, (1, 1, 1, 1), state) == expected
    assert len(none) == 2  # the start and the likeliest; an Evaluator remembers both


def test_a_state_that_is_of_something_else(tmp_path: Path) -> None:
    space, state = space_of(0), tmp_path / "search.safetensors"
    accuracy, budget = additive(space), space.dense_ms / 2
    search(space, accuracy, budget, SHORT, state=state)
    with pytest.raises(CheckpointError, match=r"search\.safetensors: of another search \(budget_ms"):
        search(space, accuracy, budget * 1.1, SHORT, state=state)
    with pytest.raises(CheckpointError, match="seed 2, expected 0"):
        search(space, accuracy, budget, Reinforce(steps=6, samples=4), state=state)
    with pytest.raises(CheckpointError, match="other layers or options"):
        search(space_of(0, 5), accuracy, budget, SHORT, state=state)
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"search\.safetensors: not a search that can be read"):
        search(space, accuracy, budget, SHORT, state=state)


def test_an_infeasible_budget_costs_nothing() -> None:
    tried, call = stopped_after(space_of(0), 1000)
    with pytest.raises(BudgetError, match="fastest mapping takes"):
        search(space_of(0), call, 0.2, SHORT)
    assert not tried
