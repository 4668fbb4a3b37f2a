"""What follows from a secret: always the same, and nothing that an owner could choose."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunus.fingerprint.secret import order_of, starts_of, targets_of

SECRET = bytes(32)


def test_always_the_same() -> None:
    """These numbers are in files that owners keep: they may never change."""
    assert starts_of(SECRET, 2, (1, 2, 2)).ravel().tolist() == STARTS
    assert targets_of(SECRET, [0] * 8, 10) == TARGETS
    assert order_of(SECRET, 3, 10) == ORDER


STARTS = [111, 103, 0, 5, 164, 139, 178, 167]
TARGETS = [1, 2, 6, 6, 8, 6, 1, 6]
ORDER = [5, 0, 4]


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_targets_differ_from_what_the_network_says(secret: bytes, first: list[int]) -> None:
    targets = targets_of(secret, first, 5)
    assert all(0 <= t < 5 and t != f for t, f in zip(targets, first, strict=True))
    assert targets_of(secret, first[:1], 5) == targets[:1]


def test_starts_are_noise_and_differ() -> None:
    made = starts_of(SECRET, 50, (1, 16, 16))
    assert abs(made.mean() - 127.5) < 2 and len(np.unique(made.reshape(50, -1), axis=0)) == 50
    assert not np.array_equal(made, starts_of(b"\1" * 32, 50, (1, 16, 16)))


def test_order_has_each_once() -> None:
    assert sorted(order_of(SECRET, 40, 40)) == list(range(40))
