"""Layers under virtual zeros: weights and masks by chance, of the size and shape that real ones have."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.translate import Layer, layer_of
from prunus.compiler.tune import Tuner, products
from prunus.graph.ir import Graph, Node
from prunus.sparsity.project import random_mask
from prunus.sparsity.scheme import Scheme

Floats = NDArray[np.float32]


def measured_ms(node: Node, graph: Graph, scheme: Scheme | None, sparsity: float, tuner: Tuner) -> float:
    """Milliseconds of a node alone under random zeros; of a recurrent one, of all its steps' products."""
    return sum(tuner.time_ms(layer, own) * times for layer, own, times in masked(node, graph, scheme, sparsity, tuner))


def masked(
    node: Node, graph: Graph, scheme: Scheme | None, sparsity: float, tuner: Tuner
) -> list[tuple[Layer, Graph, int]]:
    """The layer with random weights and zeros, its graph, and how often it is computed; of a recurrent one its
    products."""
    names = ("weight", "recurrence") if node.op == "recurrent" else ("weight",)
    constants = dict(graph.constants)
    for name in (node.attrs[key] for key in names):
        constants[name] = _virtual(graph.constants[name], scheme, sparsity)
    graph = replace(graph, constants=constants)
    shape = graph.values[node.inputs[0]].shape
    made = []
    for product, own in products(node, graph):
        times = 1
        if node.op == "recurrent":  # once per step, or of many steps and sequences as pixels
            pixels = own.values["x"].shape[3] if product.op == "conv" else shape[1]
            times = -(-shape[0] * shape[1] // pixels)
        made.append((layer_of(product, own, tuner.isa), own, times))
    return made


def _virtual(weight: Floats, scheme: Scheme | None, sparsity: float) -> Floats:
    """Random weights of the size that they have, none zero but where the mask is."""
    size = float(np.abs(weight).mean()) or 1.0
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1.5, weight.shape) * rng.choice((-size, size), weight.shape)
    if scheme is not None:
        values *= random_mask(weight.shape, scheme, sparsity, seed=0)
    return np.asarray(values, np.float32)
