"""Masks as text and as PNG."""

import io

import numpy as np
from PIL import Image

from prunus.demo.picture import GONE, KEPT, LINE, block_text, png_bytes


def test_quarters() -> None:
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 1, 0, 0]], bool)
    assert block_text(mask) == "▚█▖\n ▘"


def test_text_is_cut_to_the_corner() -> None:
    lines = block_text(np.ones((100, 50, 3, 3), bool), rows=10, columns=7).splitlines()
    assert lines == ["███▌"] * 5


def test_png_has_each_weight_and_the_blocks() -> None:
    mask = np.zeros((4, 2, 1, 3), bool)
    mask[3, 1, 0, 2] = True
    pixels = np.asarray(Image.open(io.BytesIO(png_bytes(mask, (2, 3), scale=3))))
    assert pixels.shape == (12, 18, 3)
    np.testing.assert_array_equal(pixels[10, 16], KEPT)
    np.testing.assert_array_equal(pixels[4, 4], GONE)
    np.testing.assert_array_equal(pixels[6, 1], LINE)
    np.testing.assert_array_equal(pixels[1, 9], LINE)
