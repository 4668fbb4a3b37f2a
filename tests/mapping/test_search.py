"""Rewards, budgets and which of those tried is the best."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.errors import BudgetError
from prunus.mapping.knapsack import at_least
from prunus.mapping.search import Found, best_of, check_budget, described, fastest, labels, narrowed
from prunus.mapping.space import LayerSpace, Option, Space
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
    with pytest.raises(BudgetError, match=f"fastest mapping takes {at_least(least)} ms"):
        check_budget(space, least * 0.999)
    with pytest.raises(BudgetError, match="nan"):
        check_budget(space, float("nan"))
    assert best_of([], 1.0) is None


def test_mappings_as_text() -> None:
    space = space_of(0)
    assert described(space, (0, 1, 0, 9)) == {"conv1.weight": "bcr:8x64 0.5", "conv3.weight": "unstructured 0.9"}
    assert labels(space)[2][:2] == ["dense", "bcr:8x64 0.5"]


def test_narrowed_to_what_is_best_of_its_kind() -> None:
    """Blocks of one scheme compete; other schemes stay, and so does where the search starts."""
    options = (
        Option(None, 0.0, 1.0, loss=0.0), Option("bcr:4x16", 0.8, 0.5, loss=0.1),
        Option("bcr:8x64", 0.8, 0.5, loss=0.2), Option("bcr:8x64", 0.9, 0.3, loss=0.4),
        Option("filter", 0.8, 0.6, loss=0.9), Option("bcr:8x32", 0.9, 0.4, loss=0.5),
    )  # fmt: skip
    layer = LayerSpace("a", "a.weight", "conv", (8, 8), 64, options)
    space, start = narrowed(Space((layer, layer), 0.5), (2, 4))
    assert [o.scheme for o in space.layers[0].options] == [None, "bcr:4x16", "bcr:8x64", "bcr:8x64", "filter"]
    assert [o.scheme for o in space.layers[1].options] == [None, "bcr:4x16", "bcr:8x64", "filter"]
    assert (space.chosen(start), space.other_ms) == ((options[2], options[4]), 0.5)
    unknown = replace(layer, options=tuple(replace(option, loss=None) for option in options))
    assert narrowed(Space((unknown,), 0.5), (5,)) == (Space((unknown,), 0.5), (5,))
