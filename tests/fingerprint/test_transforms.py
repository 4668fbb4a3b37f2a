"""What a suspect may do to pictures, and whether it finds the examples among honest ones."""

import numpy as np
import pytest

from prunus.fingerprint.detection import detected
from prunus.fingerprint.transforms import TRANSFORMS, noisy, quantised


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_stay_pictures(name: str, channels: int) -> None:
    smooth = np.add.outer(np.arange(28), np.arange(20)).astype(np.uint8) * 5
    pictures = np.repeat(smooth[None, None], channels, 1).repeat(2, 0)
    before = pictures.copy()
    changed = TRANSFORMS[name](pictures)
    assert changed.shape == pictures.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(pictures, before)
    apart = np.abs(changed.astype(int) - pictures)
    assert apart.mean() < 30 and (apart.max() == 0) == (name == "none")
    np.testing.assert_array_equal(changed, TRANSFORMS[name](pictures))


def test_exact_ones() -> None:
    levels = np.array([0, 40, 128, 200, 255], np.uint8)
    np.testing.assert_array_equal(quantised(levels, 1), [0, 0, 255, 255, 255])
    np.testing.assert_array_equal(quantised(levels, 8), levels)
    noise = noisy(np.full((1000,), 128, np.uint8), 4.0).astype(int) - 128
    assert abs(noise.mean()) < 0.5 and abs(noise.std() - 4) < 0.5


def test_detection() -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.standard_normal((200, 1, 28, 28)), 3).cumsum(2).astype(np.float32)
    noise = rng.random((50, 1, 28, 28), np.float32)
    assert detected(noise, smooth) == 1
    assert detected(smooth[:100], smooth[100:]) < 0.15
