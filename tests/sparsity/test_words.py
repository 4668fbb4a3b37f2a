"""Words of packed channels: what is in them, what rounding keeps, and that no two products overflow 16 bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from prunus.sparsity import words


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 11), st.integers(1, 6), st.sampled_from([2, 4]))
def test_words_hold_their_channels(seed: int, m: int, channels: int, positions: int, pack: int) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.int8 if pack == 4 else np.uint16
    values = rng.integers(0, 120, (m, channels * positions)).astype(dtype)
    made = words.words(values, channels, rows=pack)
    assert made.shape == (-(-m // pack) * pack, -(-channels // pack) * positions)
    inside = np.ascontiguousarray(made).view(dtype).reshape(len(made), -1, positions, pack)
    whole = inside.swapaxes(2, 3).reshape(len(made), -1, positions)
    assert_array_equal(whole[:m, :channels], values.reshape(m, channels, positions))
    assert not whole[m:].any() and not whole[:, channels:].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_nothing_overflows(seed: int, m: int, k: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.choice([-127, 127, 0], (m, 4 * k)) if extreme else rng.integers(-127, 128, (m, 4 * k))
    matrix = words.words(weights.astype(np.int8), 4 * k)
    wide, source = words.without_overflow(matrix)
    twos = wide.view(np.int8).reshape(m, -1, 2, 2).astype(np.int64)
    assert np.maximum(twos, 0).sum(-1).max(initial=0) * 255 < 1 << 15
    assert np.minimum(twos, 0).sum(-1).min(initial=0) * 255 >= -(1 << 15)
    summed = np.zeros((m, k, 4), np.int64)
    np.add.at(summed, (slice(None), source), wide.view(np.int8).reshape(m, -1, 4))
    assert_array_equal(summed, matrix.view(np.int8).reshape(m, k, 4))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 4, 9]))
def test_rounding(seed: int, m: int, kernels: int, positions: int) -> None:
    """Within a step of each weight, within half of each kernel's sum; zeros stay zeros."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((m, kernels * positions)).astype(np.float32)
    matrix *= rng.random(matrix.shape) < 0.7
    scales = words.row_scales(matrix)
    steps = words.quantised(matrix, scales, positions)
    assert not steps[matrix == 0].any() and np.abs(steps.astype(int)).max() <= words.MOST
    error = matrix / scales[:, None] - steps
    assert np.abs(error).max() <= 1 + 1e-3
    kept = (matrix != 0).reshape(m, kernels, positions).sum(-1) > 1
    sums = error.reshape(m, kernels, positions).sum(-1)
    assert np.abs(sums[kept]).max(initial=0) <= 0.5 + 1e-3 or positions == 1


def test_whole_steps_are_kept() -> None:
    steps = np.random.default_rng(0).integers(-127, 128, (6, 18)).astype(np.float32)
    scales = np.full(6, 0.013, np.float32)
    assert_array_equal(words.quantised(steps * scales[:, None], scales, 9), steps)


def test_bfloat16() -> None:
    """Ties to even, as torch rounds; -0 is 0; back and forth is the identity."""
    exact = np.float32([1.0, 1.00390625, 1.01171875, -2.5, 0.0, -0.0, 3.0e38, 1e-40])
    bits = words.bf16_bits(exact)
    assert_array_equal(words.from_bf16(bits)[:6], np.float32([1.0, 1.0, 1.015625, -2.5, 0.0, 0.0]))
    assert bits[5] == 0
    assert_array_equal(words.bf16_bits(words.from_bf16(bits)), bits)


def test_lone_weights() -> None:
    values = np.array([[1, -2], [3, -4], [-5, 6]], np.int8)
    made = words.lone_quads(values, 3)
    assert made.shape == (1, 2, 4)
    halves = made.view(np.int16).reshape(1, 2, 4, 2)
    assert_array_equal(halves[0, :, [0, 1], 0], [[1, -2], [3, -4]])
    assert_array_equal(halves[0, :, 2, 1], [-5, 6])
    assert not halves[0, :, 2, 0].any() and not halves[0, :, 3].any()
