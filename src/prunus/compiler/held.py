"""Weights held in fewer bits than they are computed in: bfloat16, or int8 with a step per row. What flows stays
float32, so that nothing needs calibration; products with single vectors take as long as reading their weights does.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity import words

HELD: Final = {"bf16": 2, "int8": 1}  # bytes per weight
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Held:
    """How a matrix's weights are held, and of int8 the step of each row."""

    form: str
    scales: Floats | None = None

    @property
    def n_bytes(self) -> int:
        return HELD[self.form]

    def of_rows(self, n: int) -> "Held":
        """The same of the first rows."""
        return replace(self, scales=None if self.scales is None else self.scales[:n])

    def rounded(self, matrix: Floats) -> Floats:
        """What the weights mean once they are held."""
        if self.scales is None:
            return words.from_bf16(words.bf16_bits(matrix))
        return words.quantised(matrix, self.scales).astype(np.float32) * self.scales[:, None]

    def encodable(self, matrix: Floats) -> Floats:
        """The matrix to encode, in steps: what is kept stays a number other than zero, so that rows keep the columns
        that they share."""
        if self.scales is None:
            return matrix
        steps = words.quantised(matrix, self.scales).astype(np.float32)
        return np.where((matrix != 0) & (steps == 0), np.float32(0.25), steps)

    def values(self, encoded: Floats) -> NDArray[Any]:
        """uint16 or int8 of an encoding's values."""
        return words.bf16_bits(encoded) if self.scales is None else np.rint(encoded).astype(np.int8)


def hold(form: str | None, matrix: Floats) -> Held | None:
    """How to hold a matrix; None: as float32."""
    if form is None:
        return None
    return Held(form, words.row_scales(matrix) if form == "int8" else None)
