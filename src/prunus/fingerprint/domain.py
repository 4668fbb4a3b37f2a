"""What an input of the network may be: 256 levels between two bounds, so that examples can be sent as pictures."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FingerprintError

TOP = 255
Levels = NDArray[np.uint8]


@final
@dataclass(frozen=True)
class Domain:
    """shape: of one sample, [c, h, w] of images or [t, f] of sequences. low, high: what levels 0 and 255 mean, one
    number or one per channel (of sequences per feature).

    Raises FingerprintError: bounds that don't fit the shape, or aren't in order.
    """

    shape: tuple[int, ...]
    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        sizes = {1, self.shape[self._axis]} if self.shape else {1}
        if not {len(self.low), len(self.high)} <= sizes:
            found = f"{len(self.low)} and {len(self.high)}"
            raise FingerprintError(f"bounds: found {found} numbers for inputs of {list(self.shape)}, expected 1 or one "
                                   "per channel")  # fmt: skip
        both = np.broadcast_arrays(np.array(self.low), np.array(self.high))
        if not (np.isfinite(both).all() and (both[0] < both[1]).all()):
            raise FingerprintError(f"bounds: found {self.low} to {self.high}, expected finite ones, low below high")

    @property
    def _axis(self) -> int:
        """Of the channels: the first of images, the last of sequences."""
        return 0 if len(self.shape) == 3 else -1

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What level 0 is and what a share of 1 adds to it, to be broadcast against samples."""
        shape = [1] * len(self.shape)
        low, high = (np.array(numbers, np.float64) for numbers in (self.low, self.high))
        spread = []
        for numbers in (low, high - low):
            at = list(shape)
            if len(numbers) > 1:
                at[self._axis] = -1
            spread.append(numbers.reshape(at).astype(np.float32))
        return spread[0], spread[1]

    def values(self, levels: Levels) -> NDArray[np.float32]:
        """float32[n, ...], as the network takes them, of uint8[n, ...]."""
        low, width = self.bounds()
        return np.ascontiguousarray(low + (levels.astype(np.float32) / np.float32(TOP)) * width, np.float32)

    def levels(self, values: NDArray[Any]) -> Levels:
        """The nearest levels; what lies outside of the bounds is cut."""
        low, width = self.bounds()
        made: Levels = np.clip(np.rint((values - low) / width * TOP), 0, TOP).astype(np.uint8)
        return made
