"""Rewards, budgets and which of those tried is the best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.errors import PrunusError
from prunus.mapping.search import Found, best_of, check_budget, described, fastest, labels
from tests.mapping.spaces import space_of

founds = st.builds(
    Found, st.tuples(st.integers(0, 3), st.integers(0, 3)), st.floats(0, 1), st.floats(0.1, 10)
)  # fmt: skip


def test_ten_percent_over_budget_cost_a_point() -> None:
    assert Found((0,), 0.92, 8.8).reward(8.0) == pytest.approx(0.91)
    assert Found((0,), 0.92, 8.0).reward(8.0) == Found((0,), 0.92, 1.0).reward(8.0) == 0.92


@given(st.lists(founds, min_size=1), st.floats(0.1, 10))
def test_the_best_is_within_the_budget_where_any_is(tried: list[Found], budget: float) -> None:
    best = best_of(tried, budget)
    assert best in tried
    within = [found for found in tried if found.ms <= budget]
    if within:
        assert best.ms <= budget
        assert best.accuracy == max(found.accuracy for found in within)
    else:
        assert best.reward(budget) == max(found.reward(budget) for found in tried)
    assert best_of(tried[::-1], budget) == best


def test_a_budget_that_nothing_keeps() -> None:
    space = space_of(0)
    least = space.ms(fastest(space))
    check_budget(space, least)
    with pytest.raises(PrunusError, match=f"fastest mapping takes {least:.4g} ms"):
        check_budget(space, least * 0.999)
    with pytest.raises(PrunusError, match="nan"):
        check_budget(space, float("nan"))
    assert best_of([], 1.0) is None


def test_mappings_as_text() -> None:
    space = space_of(0)
    assert described(space, (0, 1, 0, 9)) == {"conv1.weight": "bcr:8x64 0.5", "conv3.weight": "unstructured 0.9"}
    assert labels(space)[2][:2] == ["dense", "bcr:8x64 0.5"]
