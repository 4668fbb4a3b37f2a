"""When two engines say the same."""

import math

import numpy as np
import pytest

from prunus.benchmark.agreement import difference

A = np.array([[1.0, -4.0], [0.5, 2.0]], np.float32)
NAN, INF = np.float32("nan"), np.float32("inf")


def changed(value: float) -> np.ndarray:
    other = A.copy()
    other[0, 0] = value
    return other


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ([A], [A], 0.0),
        ([], [], 0.0),
        ([A[:0]], [A[:0]], 0.0),
        ([A * 0], [A * 0], 0.0),
        ([changed(2.0)], [A], 0.25),
        ([A, changed(3.0)], [A, A], 0.5),
        ([changed(NAN)], [changed(NAN)], 0.0),
        ([changed(INF)], [changed(INF)], 0.0),
        ([changed(NAN)], [A], math.inf),
        ([A], [changed(NAN)], math.inf),
        ([changed(INF)], [changed(-INF)], math.inf),
        ([changed(INF)], [A], math.inf),
        ([A], [A, A], math.inf),
        ([A.T[:1]], [A], math.inf),
        ([A], [A * 0], math.inf),
    ],
)
def test_difference(own: list[np.ndarray], other: list[np.ndarray], expected: float) -> None:
    assert difference(own, other) == expected


def test_unsigned_numbers_dont_wrap() -> None:
    assert difference([np.array([1], np.uint8)], [np.array([2], np.uint8)]) == 0.5
