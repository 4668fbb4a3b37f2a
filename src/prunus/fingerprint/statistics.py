"""How many matches prove something: exact binomial tests, bounds on rates, ranks, and curves over models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE = 0.95
ASSUMED_RATE = 0.5  # of matches on an independent model, where no null models say how many there are


def upper_rate(matches: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound on the rate behind `matches` of `n`. Source: Clopper and Pearson, Biometrika 1934."""
    return 1.0 if matches >= n else float(stats.beta.ppf(confidence, matches + 1, n - matches))


def lower_rate(matches: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound, likewise."""
    return 0.0 if matches <= 0 else float(stats.beta.ppf(1 - confidence, matches, n - matches + 1))


def null_rate(null: Sequence[int], n: int, classes: int) -> float:
    """The rate of matches that an independent model is granted: the largest upper bound over the null models, never
    below chance; without any, ASSUMED_RATE, or chance where that is more."""
    rates = [upper_rate(matches, n) for matches in null] or [ASSUMED_RATE]
    return max(*rates, 1 / classes)


def p_binomial(matches: int, n: int, rate: float) -> float:
    """Probability of so many matches or more of `n`, if each comes about with `rate` by itself."""
    return float(stats.binom.sf(matches - 1, n, rate))


def threshold(n: int, rate: float, alpha: float) -> int | None:
    """The fewest matches whose `p_binomial` is alpha at most; None: not even `n` are enough."""
    if p_binomial(n, n, rate) > alpha:
        return None
    most = int(stats.binom.isf(alpha, n, rate)) + 1
    while most > 0 and p_binomial(most - 1, n, rate) <= alpha:
        most -= 1
    while p_binomial(most, n, rate) > alpha:
        most += 1
    return most


def fewest(rate: float, alpha: float) -> int:
    """Examples below which no number of matches is proof."""
    if rate >= 1:
        return 0
    n = max(int(np.log(alpha) / np.log(rate)) - 1, 1)
    while p_binomial(n, n, rate) > alpha:  # as `threshold` has it, to the last digit
        n += 1
    return n


def fewest_at_best(classes: int, alpha: float) -> int:
    """Examples below which there can't be proof, even if a null model matches none of them."""
    n = 1
    while p_binomial(n, n, max(upper_rate(0, n), 1 / classes)) > alpha:
        n += 1
    return n


def p_rank(matches: int, null: Sequence[int]) -> float:
    """The suspect's place among the null models; with K of them never below 1 / (K + 1)."""
    return (1 + sum(other >= matches for other in null)) / (len(null) + 1)


def p_beta_binomial(matches: int, n: int, null: Sequence[int]) -> float | None:
    """As `p_binomial`, with a rate that differs between models as it does between the null models, by maximum
    likelihood; None of fewer than three, from which there is no spread to be had."""
    if len(null) < 3:
        return None

    def unlikely(logs: NDArray[np.float64]) -> float:
        a, b = np.exp(logs)
        return -float(stats.betabinom.logpmf(null, n, a, b).sum())

    mean = (sum(null) + 0.5) / (n * len(null) + 1)
    start = np.log([10 * mean, 10 * (1 - mean)])
    found = optimize.minimize(unlikely, start, method="L-BFGS-B", bounds=[(-7, 9), (-7, 9)])
    a, b = np.exp(found.x)
    tail = stats.betabinom.pmf(np.arange(max(matches, 0), n + 1), n, a, b)  # scipy's sf is 1 - cdf: 0 below 1e-16
    return float(np.clip(tail.sum(), 0, 1))


def roc(related: Sequence[float], unrelated: Sequence[float]) -> tuple[list[float], list[float]]:
    """Shares of unrelated and of related models with at least a score, from the highest score down; (0, 0) first."""
    scores = sorted({*related, *unrelated}, reverse=True)
    false = [0.0, *(float(np.mean(np.asarray(unrelated) >= s)) for s in scores)]
    true = [0.0, *(float(np.mean(np.asarray(related) >= s)) for s in scores)]
    return false, true


def area(related: Sequence[float], unrelated: Sequence[float]) -> float:
    """Probability that a related model scores higher than an unrelated one, ties half: the area under `roc`."""
    a, b = np.asarray(related, np.float64)[:, None], np.asarray(unrelated, np.float64)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Of the mean, by Student's t, two-sided; of one value or none, without bounds."""
    if len(values) < 2:
        return (-float("inf"), float("inf"))
    mean, error = float(np.mean(values)), float(stats.sem(values))
    reach: Any = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return mean - float(reach) * error, mean + float(reach) * error
