"""Dense 3x3 filters as the 16 matrices of F(2x2, 3x3), in row groups: what the kernel of winograd.h reads.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308, section 4.1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.encoding import Encoding, Floats, encode_rows

POSITIONS = 16  # of a 4x4 tile
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def transform(matrix: Floats) -> Floats:
    """G g G^T of each filter and channel: float32[16, m, channels] from a layer matrix [m, channels * 9].

    Computed in double precision, rounded once.
    """
    m = len(matrix)
    filters = matrix.reshape(m, -1, 3, 3).astype(np.float64)
    transformed: NDArray[np.float64] = (_G @ filters @ _G.T).reshape(m, -1, POSITIONS)
    return transformed.transpose(2, 0, 1).astype(np.float32)


def row_groups(m: int, channels: int, heights: Sequence[int], section_rows: int) -> Encoding:
    """The row groups of one position's matrix [m, channels], nothing missing; values are ones.

    `section_rows` must be a multiple of the largest height, so that all sections but the last have that many rows.
    """
    assert section_rows % max(heights) == 0, "sections would differ in height"
    return encode_rows(np.ones((m, channels), np.float32), heights, section_rows * channels)


def pack(matrix: Floats, heights: Sequence[int], section_rows: int) -> Floats:
    """The transformed filters in the order of reading: [section][position][group][channel][row of the group]."""
    filters = transform(matrix)
    _, m, channels = filters.shape
    groups = row_groups(m, channels, heights, section_rows)
    starts = np.cumsum(groups.heights) - groups.heights
    pieces = []
    for low, high in zip(groups.sections[:-1], groups.sections[1:], strict=True):
        blocks = [
            filters[:, starts[g] : starts[g] + groups.heights[g]].swapaxes(1, 2).reshape(POSITIONS, -1)
            for g in range(low, high)
        ]
        pieces.append(np.concatenate(blocks, axis=1).ravel())
    return np.concatenate(pieces)
