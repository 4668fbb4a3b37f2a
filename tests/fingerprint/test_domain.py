"""Levels and values, and bounds that fit nothing."""

import numpy as np
import pytest

from prunus.errors import FingerprintError
from prunus.fingerprint.domain import Domain


@pytest.mark.parametrize("shape", [(3, 2, 2), (5, 3)])
def test_levels_are_what_values_say(shape: tuple[int, ...]) -> None:
    domain = Domain(shape, (-1.0, 0.0, 10.0), (1.0, 2.0, 20.0))
    levels = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    values = domain.values(levels)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(domain.levels(values), levels)
    last = values[:, 2] if len(shape) == 3 else values[..., 2]
    assert last.min() >= 10 and last.max() <= 20


def test_ends() -> None:
    domain = Domain((1, 1, 2), (-3.0,), (5.0,))
    np.testing.assert_array_equal(domain.values(np.array([[[[0, 255]]]], np.uint8)), [[[[-3, 5]]]])
    np.testing.assert_array_equal(domain.levels(np.array([[[[-9.0, 9.0]]]])), [[[[0, 255]]]])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [((0.0, 0.0), (1.0,), "found 2 and 1 numbers"), ((1.0,), (1.0,), "low below high"), ((0.0,), (np.inf,), "finite")],
)
def test_refused(low: tuple[float, ...], high: tuple[float, ...], said: str) -> None:
    with pytest.raises(FingerprintError, match=said):
        Domain((3, 4, 4), low, high)
