"""Recordings for tests: one coefficient is loud, and its number is the digit."""

import numpy as np

from prunus.demo.speech.data import Spoken, deal


def spoken(n: int = 120) -> Spoken:
    """n recordings of 5 to 50 frames."""
    rng = np.random.default_rng(0)
    lengths, y = rng.integers(5, 51, n), rng.integers(0, 10, n)
    x = rng.standard_normal((int(lengths.sum()), 13))
    x[np.arange(len(x)), np.repeat(y, lengths)] += 3
    return deal(x, lengths, y)
