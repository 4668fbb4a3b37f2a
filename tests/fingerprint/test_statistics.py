"""Tests and bounds against scipy's, numbers of the literature, and definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prunus.fingerprint import statistics as s

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
rates = st.floats(0.01, 0.95)


@pytest.mark.parametrize(
    ("matches", "rate", "p"),
    [(20, 0.1, 1.979e-3), (30, 0.1, 2.445e-8), (40, 0.1, 2.946e-15), (50, 0.2, 2.139e-11)],
)
def test_binomial_numbers(matches: int, rate: float, p: float) -> None:
    assert s.p_binomial(matches, 100, rate) == pytest.approx(p, rel=1e-3)


@pytest.mark.parametrize(
    ("n", "rate", "alpha", "needed"),
    [(50, 0.1, 1e-3, 14), (100, 0.01, 1e-3, 6), (100, 0.1, 1e-3, 21), (100, 0.2, 1e-6, 42), (200, 0.1, 1e-3, 35)],
)
def test_threshold_numbers(n: int, rate: float, alpha: float, needed: int) -> None:
    assert s.threshold(n, rate, alpha) == needed


def test_upper_rate_of_twelve() -> None:
    assert s.upper_rate(12, 100) == pytest.approx(0.1872, abs=1e-4)


@settings(deadline=None)
@given(counts, rates)
def test_p_is_scipys(pair: tuple[int, int], rate: float) -> None:
    matches, n = pair
    expected = stats.binomtest(matches, n, rate, alternative="greater").pvalue
    assert s.p_binomial(matches, n, rate) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(counts)
def test_bounds_are_scipys(pair: tuple[int, int]) -> None:
    found = stats.binomtest(*pair).proportion_ci(0.9, "exact")  # two-sided 90 %: each side 95 %
    assert (s.lower_rate(*pair), s.upper_rate(*pair)) == pytest.approx((found.low, found.high), abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 200), rates, st.floats(1e-6, 0.2))
def test_threshold_is_the_fewest(n: int, rate: float, alpha: float) -> None:
    needed = s.threshold(n, rate, alpha)
    if needed is None:
        assert rate**n > alpha and n < s.fewest(rate, alpha)
    else:
        assert s.p_binomial(needed, n, rate) <= alpha < s.p_binomial(needed - 1, n, rate)
        assert n >= s.fewest(rate, alpha) or rate**n == pytest.approx(alpha)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_area_is_mann_whitneys(a: list[int], b: list[int]) -> None:
    expected = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert s.area(a, b) == pytest.approx(expected)
    false, true = s.roc(a, b)
    assert np.trapezoid(true, false) == pytest.approx(expected)


@pytest.mark.parametrize(("rate", "alpha"), [(0.1, 0.001), (0.1, 0.01), (0.01, 1e-6), (0.5, 1e-3), (0.999, 0.05)])
def test_fewest_is_the_fewest(rate: float, alpha: float) -> None:
    n = s.fewest(rate, alpha)
    assert s.threshold(n, rate, alpha) == n and (n == 1 or s.threshold(n - 1, rate, alpha) is None)


def test_null_rate() -> None:
    assert s.null_rate([], 100, 10) == s.ASSUMED_RATE
    assert s.null_rate([3, 12, 5], 100, 10) == pytest.approx(0.1872, abs=1e-4)
    assert s.null_rate([0], 100, 2) == 0.5  # never below chance
    assert s.null_rate([100], 100, 10) == 1


def test_rank() -> None:
    assert s.p_rank(50, [1] * 99) == 0.01
    assert s.p_rank(5, [5, 4, 6]) == 0.75
    assert s.p_rank(5, []) == 1


def test_spread_lies_between() -> None:
    null = [2, 30, 8, 15, 5, 25]
    p = s.p_beta_binomial(45, 100, null)
    assert p is not None and s.p_binomial(45, 100, float(np.mean(null)) / 100) < p < s.p_rank(45, null)
    assert s.p_beta_binomial(45, 100, [1, 2]) is None
    small = s.p_beta_binomial(90, 100, [5] * 5)  # not 0
    assert small is not None and s.p_binomial(90, 100, 0.05) < small < 1e-60
    even = s.p_beta_binomial(25, 100, [10, 10, 11, 9, 10, 10])
    assert even == pytest.approx(s.p_binomial(25, 100, 0.1), rel=0.5)


@pytest.mark.slow
def test_p_values_of_null_models_are_not_too_small() -> None:
    """Of models with one common rate, measured on others: at most a share alpha is called owned."""
    rng = np.random.default_rng(0)
    for alpha in (0.05, 0.01):
        wrong = 0
        for _ in range(400):
            rate = s.null_rate(rng.binomial(100, 0.15, 5).tolist(), 100, 10)
            wrong += s.p_binomial(int(rng.binomial(100, 0.15)), 100, rate) <= alpha
        assert wrong <= 400 * alpha


def test_interval_is_students() -> None:
    low, high = s.interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert s.interval([1.0]) == (-float("inf"), float("inf"))
