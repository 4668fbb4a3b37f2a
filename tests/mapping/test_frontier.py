"""Points of a frontier: from dense to the fastest, none beaten by another."""

from itertools import pairwise

import pytest

from prunus.mapping.frontier import frontier_of, space_to_explore
from prunus.mapping.rules import Terms
from prunus.mapping.search import fastest
from tests.mapping.fakes import sources
from tests.mapping.spaces import DENSE_ACCURACY, additive, space_of


def test_from_dense_to_the_fastest() -> None:
    space = space_of(0)
    points = frontier_of(space, additive(space), 6)
    assert 3 < len(points) <= 6
    assert points[0].loss == points[0].zeros == 0 and points[0].accuracy == DENSE_ACCURACY
    assert points[-1].ms == pytest.approx(space.ms(fastest(space)))
    for slow, fast in pairwise(points):
        assert fast.ms < slow.ms and fast.loss > slow.loss
        assert fast.accuracy == pytest.approx(DENSE_ACCURACY - fast.loss)


def test_ends_stay_dense_and_nothing_is_trained_without_data() -> None:
    space = space_to_explore(sources(), Terms())
    assert len(space.layers[0].options) == len(space.layers[-1].options) == 1 < len(space.layers[2].options)
    assert all(point.accuracy is None and point.zeros <= 0.95 for point in frontier_of(space))
