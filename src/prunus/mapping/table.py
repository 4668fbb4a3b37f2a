"""The latency model: measured times of single layers under random masks, kept, and estimates in between.

A layer is known by its signature: operator, shapes, strides and what else its time depends on but for its zeros. Layers
that differ in weights only share an entry. Between two measured sparsities time is taken as linear in the density.
Source: "Automatic mapping of the best-suited DNN pruning schemes", TODAES 27 (2022), arXiv:2111.11581, for the table;
grid and interpolation are ours.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from prunus.compiler.virtual import measured_ms
from prunus.mapping.keep import Entry, Kept
from prunus.mapping.network import Network, Site
from prunus.sparsity.check import fits
from prunus.sparsity.project import resolve_sparsity
from prunus.sparsity.scheme import Scheme
from prunus.sparsity.schemes import SCHEMES

GRID = (0.5, 0.7, 0.8, 0.9, 0.95)  # sparsities that are measured; between them times are interpolated


@final
@dataclass(frozen=True)
class Time:
    """Milliseconds of a layer alone; measured False where they are an estimate."""

    ms: float
    measured: bool = True


Measure = Callable[[Site, Scheme | None, float], float]


@final
@dataclass(frozen=True, eq=False)
class Table:
    """Times of layers. `measure` gives milliseconds of a layer under a scheme (None: dense) and sparsity; what it gave
    is kept in `kept` (None: until the end of the process). measured: False where `measure` itself estimates."""

    measure: Measure
    kept: Kept | None = None
    measured: bool = True
    grid: tuple[float, ...] = GRID
    progress: Callable[[str], None] | None = None
    known: dict[Entry, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept is not None:
            self.known.update(self.kept.times())

    def dense(self, site: Site) -> Time:
        """Of the layer without zeros."""
        return Time(self._known(site, None, 0.0), self.measured)

    def time(self, site: Site, scheme: Scheme, sparsity: float) -> Time:
        """Of the layer under a scheme, which it has to be able to take: measured, or between the nearest two sparsities
        of the grid, beyond which there is only measuring."""
        points = self.points(scheme)
        if sparsity in points or not points[0] < sparsity < points[-1]:
            return Time(self._known(site, scheme, sparsity), self.measured)
        at = bisect_left(points, sparsity)
        low, high = points[at - 1], points[at]
        share = (sparsity - low) / (high - low)  # linear in 1 - sparsity is linear in sparsity
        ends = [self._known(site, scheme, point) for point in (low, high)]
        return Time(ends[0] + share * (ends[1] - ends[0]), False)

    def points(self, scheme: Scheme) -> tuple[float, ...]:
        """Sparsities of the grid that the scheme can have, in order."""
        if SCHEMES[scheme.name].fixed:
            return (resolve_sparsity(scheme, None),)
        least = 1 - SCHEMES[scheme.name].densest(scheme)
        above = tuple(point for point in self.grid if point > least)
        return (least, *above) if least > 0 else above

    def _known(self, site: Site, scheme: Scheme | None, sparsity: float) -> float:
        entry = Entry(site.signature, "dense" if scheme is None else str(scheme), round(sparsity, 4))
        if entry not in self.known:
            if self.progress:
                self.progress(f"{site.name} {entry.scheme} {entry.sparsity:g}")
            self.known[entry] = self.measure(site, scheme, sparsity)
            if self.kept is not None:
                self.kept.add(entry, self.known[entry])
        return self.known[entry]


def table_of(network: Network, progress: Callable[[str], None] | None = None, *, keep: bool = True) -> Table:
    """The table of a network's layers, measured on this CPU.

    Raises TargetError: this CPU can't run the target.
    """
    tuner = network.tuner()

    def measure(site: Site, scheme: Scheme | None, sparsity: float) -> float:
        return sum(measured_ms(node, network.graph, scheme, sparsity, tuner) for node in site.nodes)

    return Table(measure, network.kept() if keep else None, progress=progress)


def can_take(site: Site, scheme: Scheme) -> bool:
    """Can the layer have zeros of this shape?"""
    return not site.refusal and fits(site.shape, scheme) is None
