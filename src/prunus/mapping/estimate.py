"""Times for targets that aren't here: instructions of the micro-kernel and bytes, against a core of that kind.

The layer is encoded as the compiler would without measuring; per column of a row group of R rows and V vectors of
pixels it takes R * V multiply-adds and R + V loads, whichever takes longer, and what has to be moved bounds that from
below. Such times order schemes; they aren't promises.
Source: Williams, Waterman and Patterson, "Roofline" (CACM 52, 2009), with numbers of cores of each kind from their
vendors' optimisation guides.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from prunus.compiler.choice import candidates, examine
from prunus.compiler.encode import encode
from prunus.compiler.translate import Layer
from prunus.compiler.tune import Tuner, layer_shape
from prunus.compiler.virtual import masked
from prunus.graph.ir import Graph
from prunus.mapping.in_place import InPlace
from prunus.mapping.network import Network, Site
from prunus.mapping.table import Table
from prunus.sparsity.scheme import Scheme

LAYER_OVERHEAD_S = 3e-6  # of a step


@final
@dataclass(frozen=True)
class Core:
    """What a core does per second and cycle: vectors multiplied and added, vectors loaded; bytes from memory."""

    ghz: float
    products: float
    loads: float
    bytes_per_s: float


CORES = {  # by the beginning of a target's name, the longest that fits
    "x86-64-avx512": Core(2.5, 2, 2, 12e9),
    "x86-64-avx2": Core(3.0, 2, 2, 12e9),
    "x86-64": Core(3.0, 1, 2, 12e9),  # without fused multiply-add
    "aarch64": Core(2.4, 2, 2, 10e9),
}


def core_of(target: str) -> Core:
    """The core that a target's name stands for."""
    return next(core for start, core in CORES.items() if target.startswith(start))


def estimated_table(network: Network) -> Table:
    """A table that measures nothing."""
    tuner = Tuner(network.isa, network.threads, "off", None, lambda _: "")

    def estimate(site: Site, scheme: Scheme | None, sparsity: float) -> float:
        total = 0.0
        for node in site.nodes:
            for layer, graph, times in masked(node, network.graph, scheme, sparsity, tuner):
                total += times * layer_s(layer, graph, tuner)
        return 1e3 * total

    return Table(estimate, measured=False)


def estimated_in_place(network: Network, table: Table) -> InPlace:
    """Layers as if alone, everything else by the bytes that it moves."""
    core, values = core_of(network.isa.target), network.graph.values
    own = {node.name for site in network.sites for node in site.nodes}
    moved = 0.0
    for node in network.graph.nodes:
        if node.name not in own:
            moved += sum(4 * float(np.prod(values[name].shape)) for name in (*node.inputs, *node.outputs))
    return InPlace({site.name: table.dense(site).ms for site in network.sites}, 1e3 * moved / core.bytes_per_s)


def layer_s(layer: Layer, graph: Graph, tuner: Tuner) -> float:
    """Seconds of a layer: the larger one of computing and moving."""
    isa, core = tuner.isa, core_of(tuner.isa.target)
    shape = layer_shape(layer, graph, isa, tuner.threads)
    choice = candidates(shape, examine(layer.encoded), isa)[0]
    kept = float(np.count_nonzero(layer.encoded))
    if choice.encoding in ("rows", "blocks") and shape.vectors:
        encoding = encode(layer.encoded, layer.groups, choice)
        heights, counts = encoding.heights.astype(np.float64), encoding.counts.astype(np.float64)
        tile = float(max(choice.tile, 1))
        per_column = np.maximum(heights * tile / core.products, (heights + tile) / core.loads)
        stores = 2 * heights * tile  # of sums: read and written once per group
        cycles = float(((counts * per_column + stores) / tile).sum()) * shape.vectors
        values = float((heights * counts).sum())
    else:
        pixels = shape.line**2 / isa.lanes if choice.encoding == "lanes" else max(shape.vectors, 1)
        cycles, values = kept * pixels / core.products, kept
        cycles /= 1 if shape.vectors else isa.lanes  # lanes are rows
    flowing = sum(4 * float(np.prod(graph.values[name].shape)) for name in (*layer.node.inputs, *layer.node.outputs))
    moving = (4 * values + flowing) / core.bytes_per_s
    return max(cycles / (core.ghz * 1e9 * tuner.threads), moving) + LAYER_OVERHEAD_S
