"""Weights of packed channels: two bfloat16 or four int8 of neighbouring input channels in one 32-bit word.

A matrix of words is encoded as one of numbers is: a column is then a pair or quad of channels at one kernel position.
int8 weights are symmetric per row, w = q * scale[row] with q in -127..127, as onnxruntime's and TFLite's are.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Words = NDArray[np.int32]

MOST = 127  # of an int8 weight
MOST_PAIR = 128  # of two of one sign that meet two uint8: 255 * 128 fits in 16 bits with its sign, 255 * 129 doesn't


def row_scales(matrix: Floats) -> Floats:
    """float32[m]: the step of each row of [m, k], so that its largest weight is 127 steps; 1 for rows of zeros."""
    largest = np.abs(matrix).max(axis=1, initial=0)
    return np.where(largest > 0, largest / MOST, 1).astype(np.float32)


def quantised(matrix: Floats, scales: Floats, positions: int = 1) -> NDArray[np.int8]:
    """int8[m, k] of float32[m, k] by steps[m]; zeros stay zeros.

    Neighbouring `positions` columns are one kernel over pixels, which are much alike where they are neighbours: weights
    are rounded so that the kernel's sum errs by at most half a step, the ones nearest to the middle the other way.
    """
    exact = matrix / scales[:, None]
    steps = np.rint(exact)
    if positions > 1:
        error = (exact - steps).reshape(-1, positions)
        missing = np.rint(error.sum(axis=1, keepdims=True))
        gain = np.where(matrix.reshape(-1, positions) != 0, error * np.sign(missing), -np.inf)
        rank = np.argsort(np.argsort(-gain, axis=1, kind="stable"), axis=1, kind="stable")
        other = (rank < np.abs(missing)) & (gain > 0)
        steps += np.where(other, np.sign(missing), 0).reshape(steps.shape)
    return np.asarray(np.clip(steps, -MOST, MOST), np.int8)


def bf16_bits(values: Floats) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each value, ties to even; -0 is 0."""
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(rounded == 0x8000, np.uint16(0), rounded)


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    """float32 of bfloat16."""
    return np.asarray((bits.astype(np.uint32) << 16).view(np.float32))


def words(values: NDArray[np.int8] | NDArray[np.uint16], channels: int, *, rows: int = 1) -> Words:
    """int32[m', k'] of int8 (quads) or bfloat16 (pairs) [m, channels * positions]: words of neighbouring channels at
    one position, ordered as (word of channels, position). Rows are filled up with zeros to a multiple of `rows`."""
    pack = 4 if values.dtype == np.int8 else 2
    m, positions = len(values), values.shape[1] // max(channels, 1)
    full = np.zeros((-(-m // rows) * rows, -(-channels // pack) * pack, positions), values.dtype)
    full[:m, :channels] = values.reshape(m, channels, positions)
    grouped = full.reshape(len(full), -1, pack, positions).swapaxes(2, 3)
    return np.ascontiguousarray(grouped).view(np.int32).reshape(len(full), -1)


def without_overflow(matrix: Words) -> tuple[Words, Ints]:
    """Quads as columns whose products with uint8, added in neighbouring twos, fit in 16 bits: a word with two weights
    that may not meet is cut in halves, the second in a column of its own. Exact for every input.

    Returns int32[m, k'] and for each of its columns the one of `matrix` that it reads: int64[k'].
    """
    twos = np.ascontiguousarray(matrix).view(np.int8).reshape(*matrix.shape, 2, 2).astype(np.int16)
    above, below = np.maximum(twos, 0).sum(-1), np.minimum(twos, 0).sum(-1)
    large = ((above > MOST_PAIR) | (below < -MOST_PAIR)).any(-1)  # [m, k]
    if not large.any():
        return matrix, np.arange(matrix.shape[1])
    octets = matrix.view(np.int8).reshape(*matrix.shape, 4)
    half = np.where(large[..., None], octets // 2, np.int8(0)).astype(np.int8)
    first, second = (np.ascontiguousarray(part).view(np.int32)[..., 0] for part in (octets - half, half))
    split = np.flatnonzero(large.any(axis=0))
    source = np.sort(np.concatenate([np.arange(matrix.shape[1]), split]))
    doubled = np.zeros(len(source), bool)
    doubled[1:] = source[1:] == source[:-1]
    wide = np.empty((len(matrix), len(source)), np.int32)
    wide[:, ~doubled] = first
    wide[:, doubled] = second[:, split]
    return wide, source


def lone_quads(values: NDArray[np.int8], channels: int) -> Words:
    """int32[planes, taps, 4] of one int8 filter per channel [channels, taps]: each weight in the half of the word where
    its byte lies once even and odd bytes are apart."""
    taps = values.shape[1]
    full = np.zeros((-(-channels // 4) * 4, taps), np.int32)
    full[:channels] = values
    halves = full.reshape(-1, 4, taps).swapaxes(1, 2) & 0xFFFF
    shifted = halves.astype(np.uint32) << np.array([0, 0, 16, 16], np.uint32)
    return np.ascontiguousarray(shifted).view(np.int32)


def lone_pairs(values: NDArray[np.uint16], channels: int) -> Floats:
    """float32[planes, taps, 2] of one bfloat16 filter per channel [channels, taps]."""
    taps = values.shape[1]
    full = np.zeros((-(-channels // 2) * 2, taps), np.float32)
    full[:channels] = from_bf16(values)
    return np.ascontiguousarray(full.reshape(-1, 2, taps).swapaxes(1, 2))
