"""Transformed filters: right by the definition, and packed in the order in which kernels read."""

import numpy as np
import pytest

from prunus.sparsity.winograd import Form, pack, row_groups, transform

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def wide() -> tuple[np.ndarray, np.ndarray]:
    """A^T and B^T of F(4, 4), from its points: powers of each, and the polynomials that are zero at all others."""
    points = np.array([1, -1, 2, -2, 0.5, -0.5])
    a = np.concatenate([points ** np.arange(4)[:, None], [[0], [0], [0], [1]]], 1)
    b = [np.append(np.poly(np.delete(points, i))[::-1], 0) for i in range(6)]
    return a, np.array([*b, np.poly(points)[::-1]])


@pytest.mark.parametrize(("form", "matrices"), [(Form(2, 3), (A, B)), (Form(4, 4), wide())])
def test_products_of_transforms_are_a_convolution(form: Form, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    (a, b), rng, n, r = matrices, np.random.default_rng(0), form.side + form.taps - 1, form.taps
    filters = (4 * rng.integers(-5, 6, (3, 2, r, r))).astype(np.float32)
    tile = rng.integers(-5, 6, (2, n, n)).astype(np.float64)
    products = np.einsum("pmc,pc->mp", transform(filters), (b @ tile @ b.T).reshape(2, form.positions).T)
    found = a @ products.reshape(3, n, n) @ a.T
    windows = np.lib.stride_tricks.sliding_window_view(tile, (r, r), axis=(1, 2))
    expected = np.einsum("cyxij,mcij->myx", windows, filters)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if form.side == 2 else 1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("m", [1, 4, 7, 12, 15])
def test_pack_is_in_the_order_of_reading(m: int) -> None:
    channels, heights, section_rows = 5, (4, 2, 1), 8
    given = np.random.default_rng(m).standard_normal((m, channels, 3, 3)).astype(np.float32)
    filters, values = transform(given), pack(given, heights, section_rows)
    groups = row_groups(m, channels, heights, section_rows)
    assert values.dtype == np.float32 and values.size == filters.size
    place, row = 0, 0
    for low, high in zip(groups.sections[:-1], groups.sections[1:], strict=True):
        sizes = groups.heights[low:high]
        for position in range(Form(2, 3).positions):
            first = row
            for size in sizes:
                piece = values[place : place + size * channels].reshape(channels, size)
                np.testing.assert_array_equal(piece, filters[position, first : first + size].T)
                place, first = place + size * channels, first + size
        row += int(sizes.sum())
        assert row == m or int(sizes.sum()) == section_rows
    assert (place, row) == (values.size, m)
