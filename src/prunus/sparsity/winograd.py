"""Dense filters as matrices of F(m x m, r x r), one per position of a tile, in row groups: what winograd.h reads.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308, section 4.1;
matrices by Toom and Cook, for points 0, 1, -1 and infinity, or 1, -1, 2, -2, 1/2, -1/2 and infinity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.encoding import Encoding, Floats, encode_rows

_DIVISORS: Final = {1: -4.5, -1: 4.5, 2: 45, -2: -45, 0.5: 45 / 16, -0.5: -45 / 16}  # points, over their distances
_G: Final = {  # by taps
    3: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array([*([p**k / d for k in range(4)] for p, d in _DIVISORS.items()), [0, 0, 0, 1]]),
}


@final
@dataclass(frozen=True)
class Form:
    """F(side x side, taps x taps): tiles of output have side x side pixels, filters taps x taps weights."""

    side: int
    taps: int

    @property
    def positions(self) -> int:
        """Of a tile of input, and products for a tile and channel."""
        return (self.side + self.taps - 1) ** 2


def form_of(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Form | None:
    """How a dense ungrouped convolution can be computed; None: not with fewer products. 7x7 at stride 2 is 4x4 at
    stride 1 over the four phases of its input, with a tap of zeros in three of them."""
    if tuple(dilations) != (1, 1):
        return None
    forms: dict[tuple[tuple[int, ...], ...], Form] = {((3, 3), (1, 1)): Form(2, 3), ((7, 7), (2, 2)): Form(4, 4)}
    return forms.get((tuple(kernel), tuple(strides)))


def transform(filters: NDArray[np.floating]) -> Floats:
    """G g G^T of each filter and channel: float32[positions, m, channels] from filters [m, channels, r, r].

    Computed in double precision, rounded once.
    """
    g = _G[filters.shape[2]]
    transformed: NDArray[np.float64] = (g @ filters.astype(np.float64) @ g.T).reshape(*filters.shape[:2], -1)
    return transformed.transpose(2, 0, 1).astype(np.float32)


def row_groups(m: int, channels: int, heights: Sequence[int], section_rows: int) -> Encoding:
    """The row groups of one position's matrix [m, channels], nothing missing; values are ones.

    `section_rows` must be a multiple of the largest height, so that all sections but the last have that many rows.
    """
    assert section_rows % max(heights) == 0, "sections would differ in height"
    return encode_rows(np.ones((m, channels), np.float32), heights, section_rows * channels)


def pack(filters: NDArray[np.floating], heights: Sequence[int], section_rows: int) -> Floats:
    """The transformed filters in the order of reading: [section][position][group][channel][row of the group]."""
    made = transform(filters)
    positions, m, channels = made.shape
    groups = row_groups(m, channels, heights, section_rows)
    starts = np.cumsum(groups.heights) - groups.heights
    pieces = []
    for low, high in zip(groups.sections[:-1], groups.sections[1:], strict=True):
        blocks = [
            made[:, starts[g] : starts[g] + groups.heights[g]].swapaxes(1, 2).reshape(positions, -1)
            for g in range(low, high)
        ]
        pieces.append(np.concatenate(blocks, axis=1).ravel())
    return np.concatenate(pieces)
