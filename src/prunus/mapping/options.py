"""The space of a network: which schemes and sparsities each layer could have, with times and losses."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from prunus.mapping.estimate import estimated_in_place, estimated_table
from prunus.mapping.in_place import InPlace, in_place
from prunus.mapping.network import Network, Site
from prunus.mapping.sensitivity import loss
from prunus.mapping.space import LayerSpace, Option, Space
from prunus.mapping.table import Table, can_take, table_of
from prunus.runtime.cpu import describe
from prunus.sparsity.scheme import Scheme, parse
from prunus.sparsity.schemes import SCHEMES

SPARSITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95)
PUNCHED = {  # blocks, smallest first: as many channels as the precision packs
    "fp32": ("punched:4x1", "punched:8x1", "punched:16x1", "punched:8x4", "punched:16x8"),
    "bf16": ("punched:4x2", "punched:8x2", "punched:8x4", "punched:16x8"),
    "int8": ("punched:4x4", "punched:8x4", "punched:16x4", "punched:16x8"),
}
BLOCKS = (
    "block-column:4x16", "bcr:4x16", "bcr:8x32", "block-column:8x64", "bcr:8x64", "bcr:16x128", "block-column:16x128",
)  # fmt: skip
OTHERS = ("unstructured", "filter")
BREAK_EVEN = 0.97  # of the dense time: above, a gain may be noise


@final
@dataclass(frozen=True, eq=False)
class Sources:
    """Where costs come from. gains: of losses, by layer, {} for 1 each. machine: the CPU that was measured, or what its
    times are estimates of."""

    network: Network
    table: Table
    placed: InPlace
    gains: Mapping[str, float]
    machine: str


def sources_of(
    network: Network, gains: Mapping[str, float] | None = None, progress: Callable[[str], None] | None = None
) -> Sources:
    """Measured here where this CPU runs the target, else estimated."""
    if network.here:
        table = table_of(network, progress)
        return Sources(network, table, in_place(network, table, progress), gains or {}, describe().name)
    table = estimated_table(network)
    machine = f"{network.isa.target}, estimated"
    return Sources(network, table, estimated_in_place(network, table), gains or {}, machine)


def schemes_for(site: Site, precision: str) -> tuple[Scheme, ...]:
    """All schemes that a layer could have: patterns and punched blocks for convolutions, blocks and BCR for all."""
    names = [*BLOCKS, *OTHERS]
    if site.kernel:
        names = ["pattern:4", *PUNCHED[precision], "block-column:8x64", "bcr:8x64", *OTHERS]
    return tuple(scheme for scheme in map(parse, names) if can_take(site, scheme))


def sparsities_of(scheme: Scheme, wanted: Iterable[float] = SPARSITIES) -> tuple[float, ...]:
    """Of the sparsities wanted those that a scheme can have; the one that it fixes."""
    family = SCHEMES[scheme.name]
    least = 1 - family.densest(scheme)
    return (round(least, 4),) if family.fixed else tuple(p for p in wanted if p >= least)


def option(sources: Sources, site: Site, scheme: Scheme, sparsity: float) -> Option:
    """A way to prune a layer, with its time in the network and its loss."""
    time = sources.table.time(site, scheme, sparsity)
    lost = loss(site, scheme, sparsity, sources.gains)
    return Option(str(scheme), sparsity, round(sources.placed.ms(site.name, time.ms), 6), time.measured, lost)


def dense_option(sources: Sources, site: Site) -> Option:
    """The layer as it is."""
    return Option(None, 0.0, round(sources.placed.dense_ms(site.name), 6), sources.table.measured, 0.0)


def pays(found: Option, dense: Option) -> bool:
    """Is it clearly faster than dense?"""
    return found.ms < BREAK_EVEN * dense.ms


def space_of(
    sources: Sources,
    options_of: Callable[[Site, Option], Sequence[Option]],
) -> Space:
    """The space whose layers have `options_of(site, dense)` besides dense."""
    layers = []
    for site in sources.network.sites:
        dense = dense_option(sources, site)
        options = (dense, *options_of(site, dense))
        weight, *others = [weight.name for weight in site.weights] or [""]
        size = sum(math.prod(weight.tensor.dims) for weight in site.weights)
        layers.append(
            LayerSpace(
                site.name, weight, site.op, site.shape, site.macs, options, tuple(others), site.layers[1:], size
            )
        )  # fmt: skip
    return Space(tuple(layers), round(sources.placed.other_ms * sources.placed.pace, 6))


def full_space(
    sources: Sources, sparsities: Sequence[float] = SPARSITIES, stays: Callable[[Site], str] = lambda site: site.refusal
) -> Space:
    """Every scheme and sparsity that is faster than dense, of layers that `stays` gives no reason to leave alone."""

    def options_of(site: Site, dense: Option) -> list[Option]:
        if stays(site):
            return []
        found = [
            option(sources, site, scheme, sparsity)
            for scheme in schemes_for(site, sources.network.precision)
            for sparsity in sparsities_of(scheme, sparsities)
        ]
        return [each for each in found if pays(each, dense)]

    return space_of(sources, options_of)
