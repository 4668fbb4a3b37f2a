"""Times at equal accuracy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import equal

LINE = [
    equal.Point("a", 1.0, 0.90),
    equal.Point("b", 4.0, 0.92),
    equal.Point("slow", 5.0, 0.91),
    equal.Point("c", 8.0, 0.93),
]


def test_along_the_frontier() -> None:
    assert [point.name for point in equal.frontier(LINE)] == ["a", "b", "c"]
    assert equal.ms_at(LINE, 0.92) == pytest.approx(4)
    assert equal.ms_at(LINE, 0.91) == pytest.approx(2)  # halfway, by the logarithm
    assert equal.ms_at(LINE, 0.5) == 1.0
    assert equal.ms_at(LINE, 0.93 + equal.TIE / 2) == 8.0
    assert equal.ms_at(LINE, 0.93 + equal.TIE * 1.1) is None
    assert equal.ms_at([], 0.9) is None


points = st.builds(equal.Point, st.just(""), st.floats(0.1, 10), st.floats(0.5, 1))


@given(st.lists(points, min_size=1), st.floats(0.5, 1))
def test_a_network_that_is_as_accurate_bounds_the_time(some: list[equal.Point], accuracy: float) -> None:
    found = equal.ms_at(some, accuracy)
    enough = [point.ms for point in some if point.accuracy >= accuracy]
    if enough:
        assert found is not None
        assert found <= min(enough) * (1 + 1e-9)
    if found is not None:
        assert found >= min(point.ms for point in some) * (1 - 1e-9)
