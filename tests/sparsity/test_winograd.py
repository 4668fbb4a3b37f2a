"""Transformed filters: right by the definition, and packed in the order in which kernels read."""

import numpy as np
import pytest

from prunus.sparsity.winograd import POSITIONS, pack, row_groups, transform

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]).T
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]]).T


def test_products_of_transforms_are_a_convolution() -> None:
    rng = np.random.default_rng(0)
    matrix = (4 * rng.integers(-5, 6, (3, 2 * 9))).astype(np.float32)
    tile = rng.integers(-5, 6, (2, 4, 4)).astype(np.float64)
    products = np.einsum("pmc,pc->mp", transform(matrix), (B.T @ tile @ B).reshape(2, POSITIONS).T)
    found = A.T @ products.reshape(3, 4, 4) @ A
    windows = np.lib.stride_tricks.sliding_window_view(tile, (3, 3), axis=(1, 2))
    np.testing.assert_array_equal(found, np.einsum("cyxij,mcij->myx", windows, matrix.reshape(3, 2, 3, 3)))


@pytest.mark.parametrize("m", [1, 4, 7, 12, 15])
def test_pack_is_in_the_order_of_reading(m: int) -> None:
    channels, heights, section_rows = 5, (4, 2, 1), 8
    matrix = np.random.default_rng(m).standard_normal((m, channels * 9)).astype(np.float32)
    filters, values = transform(matrix), pack(matrix, heights, section_rows)
    groups = row_groups(m, channels, heights, section_rows)
    assert values.dtype == np.float32 and values.size == filters.size
    place, row = 0, 0
    for low, high in zip(groups.sections[:-1], groups.sections[1:], strict=True):
        sizes = groups.heights[low:high]
        for position in range(POSITIONS):
            first = row
            for size in sizes:
                piece = values[place : place + size * channels].reshape(channels, size)
                np.testing.assert_array_equal(piece, filters[position, first : first + size].T)
                place, first = place + size * channels, first + size
        row += int(sizes.sum())
        assert row == m or int(sizes.sum()) == section_rows
    assert (place, row) == (values.size, m)
