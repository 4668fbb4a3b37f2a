"""What least squares needs to know of a layer's inputs and of the outputs that it should have: sums of products, never
the activations themselves.
"""

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from prunus.errors import CalibrationError


@final
class Sums:
    """Sums over positions, in float64, of what a layer reads and what it is to answer."""

    def __init__(self, n_filters: int, n_columns: int) -> None:
        self.n = 0
        self.xx = torch.zeros(n_columns, n_columns, dtype=torch.float64)
        self.yx = torch.zeros(n_filters, n_columns, dtype=torch.float64)
        self.x = torch.zeros(n_columns, dtype=torch.float64)
        self.y = torch.zeros(n_filters, dtype=torch.float64)
        self.yy = torch.zeros(n_filters, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """x: float64[columns, n], y: float64[filters, n]."""
        self.n += x.shape[1]
        self.xx.addmm_(x, x.T)
        self.yx.addmm_(y, x.T)
        self.x += x.sum(1)
        self.y += y.sum(1)
        self.yy += y.square().sum(1)


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """The quadratic that reconstruction makes small: the mean over positions of |W x - y|^2 is
    `sum(W h W^T) - 2 sum(W * g) + sum(yy)`.

    h: float64[k, k]. g: float64[o, k]. yy: float64[o]. mean_x, mean_y: float64; x and y are taken less their means
    where the layer has a bias, which is then mean_y - W mean_x. energy: of y, with its mean.
    """

    h: Tensor
    g: Tensor
    yy: Tensor
    mean_x: Tensor
    mean_y: Tensor
    energy: float

    @classmethod
    def of(cls, sums: Sums, name: str, centred: bool) -> Self:
        """Raises CalibrationError: activations that aren't finite."""
        n = max(sums.n, 1)
        h, g, yy = sums.xx / n, sums.yx / n, sums.yy / n
        if not (torch.isfinite(h).all() and torch.isfinite(yy).all()):
            raise CalibrationError(f"calibration: {name} reads or makes values that aren't finite")
        x, y = sums.x / n, sums.y / n
        energy = float(yy.sum())
        if centred:
            h, g, yy = h - torch.outer(x, x), g - torch.outer(y, x), (yy - y.square()).clamp(min=0)
        return cls(h, g, yy, x, y, energy)

    def error(self, weights: Tensor, offset: Tensor | None = None) -> float:
        """The relative error of the outputs with `weights` [o, k]: root of squared error over squared outputs.

        offset: float64[o], a bias that is kept as it is, less the one that is best for the weights.
        """
        squares = ((weights @ self.h) * weights).sum() - 2 * (weights * self.g).sum() + self.yy.sum()
        if offset is not None:
            squares = squares + offset.square().sum()
        return float((squares.clamp(min=0) / self.energy).sqrt()) if self.energy > 0 else 0.0

    def bias(self, weights: Tensor) -> Tensor:
        """float64[o]: the best bias with `weights` [o, k], where the layer has one."""
        return self.mean_y - weights @ self.mean_x
