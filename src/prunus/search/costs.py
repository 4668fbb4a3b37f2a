"""What a network costs, as a function of which channels live, with gradients: multiply-adds, weights, or time.

Source of the first: Li et al., "Pruning-as-Search", IJCAI 2022, arXiv:2206.01198, equation of the budget. Ours counts
all convolutions and linear layers, down-sampling ones among them, depthwise ones once per channel, and is divided by
the cost of the whole network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.training.shrink.groups import Groups
from prunus.training.shrink.units import WHOLE

Floats = NDArray[np.float64]


class Cost(Protocol):
    """Of a network, as a share of its whole one. mask: float[groups.n], zeros and ones; gradients pass."""

    def __call__(self, mask: Tensor) -> Tensor: ...

    whole: float  # in the cost's own unit, which is `unit`
    unit: str


@final
class Products:
    """Sums of products: of each term a constant times two numbers of channels."""

    def __init__(self, n: int, constants: Sequence[float], sizes: Sequence[tuple["Size", "Size"]], unit: str) -> None:
        self.unit = unit
        self._constants = torch.tensor(constants, dtype=torch.float64)
        self._fixed = torch.tensor([[a.fixed, b.fixed] for a, b in sizes], dtype=torch.float64)
        counts = np.stack([[a.counts, b.counts] for a, b in sizes]) if sizes else np.zeros((0, 2, n))
        self._counts = torch.from_numpy(counts)
        self.whole = 1.0
        self.whole = float(self(torch.ones(n)))

    def __call__(self, mask: Tensor) -> Tensor:
        """float64 scalar."""
        sizes = self._fixed.to(mask.device) + self._counts.to(mask.device) @ mask.double()
        return (self._constants.to(mask.device) * sizes[:, 0] * sizes[:, 1]).sum() / self.whole


@final
@dataclass(frozen=True, eq=False)
class Size:
    """An extent of a tensor: positions that stay, and how many each group has. counts: float64[groups.n]."""

    fixed: float
    counts: Floats


def size_of(groups: Groups, name: str, dim: int) -> Size:
    """Of a tensor's dimension; 1 where it hasn't that many."""
    shape, ids = groups.shapes[name], groups.ties.get((name, dim))
    if ids is None:
        return Size(float(shape[dim]) if dim < len(shape) else 1.0, np.zeros(groups.n))
    return Size(float((ids == WHOLE).sum()), groups.counts[name, dim].astype(np.float64))


def macs(groups: Groups) -> Products:
    """Multiply-adds on the example inputs."""
    sizes = [(size_of(groups, call.weight, 0), size_of(groups, call.weight, 1)) for call in groups.calls]
    constants = [call.positions * float(np.prod(groups.shapes[call.weight][2:])) for call in groups.calls]
    return Products(groups.n, constants, sizes, "multiply-adds")


def weights(groups: Groups) -> Products:
    """Weights of the layers, without biases and normalisation."""
    names = list(dict.fromkeys(call.weight for call in groups.calls))
    sizes = [(size_of(groups, name, 0), size_of(groups, name, 1)) for name in names]
    return Products(groups.n, [float(np.prod(groups.shapes[name][2:])) for name in names], sizes, "weights")


@final
@dataclass(frozen=True, eq=False)
class Times:
    """Milliseconds of a layer by its numbers of channels: ms[i, j] at filters[i] and channels[j], both ascending."""

    filters: Floats
    channels: Floats
    ms: Floats


@final
class Latency:
    """Milliseconds: of each layer interpolated, bilinearly, between measured widths; and `rest_ms` for everything else.

    factor: what the whole network takes over what its layers take alone; see `calibrate`.
    """

    unit = "ms"

    def __init__(self, groups: Groups, times: Sequence[Times], rest_ms: float = 0.0) -> None:
        """times: of each of groups.calls."""
        self._sizes = [(size_of(groups, call.weight, 0), size_of(groups, call.weight, 1)) for call in groups.calls]
        self._times = [_from_nothing(table) for table in times]
        self._rest, self.factor, self.whole, self._n = rest_ms, 1.0, 1.0, groups.n
        self.whole = float(self(torch.ones(groups.n)))

    def calibrate(self, mask: Tensor, measured_ms: float) -> None:
        """From now on the network that `mask` leaves is taken to need that long; `whole` scales with it."""
        predicted = float(self(mask)) * self.whole
        self.scale(self.factor * measured_ms / predicted)

    def scale(self, factor: float) -> None:
        """Set `factor`, and `whole` with it."""
        self.factor, self.whole = factor, 1.0
        self.whole = float(self(torch.ones(self._n)))

    def __call__(self, mask: Tensor) -> Tensor:
        """float64 scalar."""
        mask = mask.double()
        total = torch.zeros((), dtype=torch.float64, device=mask.device) + self._rest
        for (rows, columns), table in zip(self._sizes, self._times, strict=True):
            filters = rows.fixed + torch.from_numpy(rows.counts).to(mask.device) @ mask
            channels = columns.fixed + torch.from_numpy(columns.counts).to(mask.device) @ mask
            total = total + _interpolate(table, filters, channels)
        return self.factor * total / self.whole


def _from_nothing(table: Times) -> Times:
    """With a row of no filters and a column of no channels, as the first cells go on, but never less than nothing and
    never slower where it is narrower."""
    filters, ms = _continued(table.filters, table.ms)
    channels, turned = _continued(table.channels, ms.T)
    return Times(filters, channels, turned.T)


def _continued(grid: Floats, ms: Floats) -> tuple[Floats, Floats]:
    if len(grid) == 1 or grid[0] == 0:
        return grid, ms
    first = ms[0] - grid[0] * (ms[1] - ms[0]) / (grid[1] - grid[0])
    first = np.maximum.accumulate(np.clip(first, 0, ms[0]))
    return np.concatenate([[0.0], grid]), np.vstack([first, ms])


def _interpolate(table: Times, filters: Tensor, channels: Tensor) -> Tensor:
    i, u = _place(table.filters, filters)
    j, v = _place(table.channels, channels)
    below, above = min(i + 1, len(table.filters) - 1), min(j + 1, len(table.channels) - 1)
    ms = [[float(table.ms[row, column]) for column in (j, above)] for row in (i, below)]
    left, right = ms[0][0] + (ms[1][0] - ms[0][0]) * u, ms[0][1] + (ms[1][1] - ms[0][1]) * u
    return left + (right - left) * v


def _place(grid: Floats, at: Tensor) -> tuple[int, Tensor]:
    """The cell that `at` is in, and where, 0 to 1; beyond the grid the last cell goes on."""
    if len(grid) == 1:
        return 0, torch.zeros_like(at)
    cell = int(np.clip(np.searchsorted(grid, float(at.detach())) - 1, 0, len(grid) - 2))
    return cell, (at - grid[cell]) / (grid[cell + 1] - grid[cell])
