"""Virtual sparsity: what would each layer gain, measured on random masks before any training.

For each layer, scheme and sparsity the layer's weights are masked at random in the scheme's shape and timed alone. As
latency depends on the block shape and rate but hardly on which weights survive, this predicts the pruned layer.
Source: Niu et al., "GRIM", TPAMI 44 (2022), arXiv:2108.11033, block-size optimisation; as a tool, PaddleSlim's idea.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from prunus.compiler.compile import read_at_batch_1
from prunus.compiler.translate import Layer, layer_of, spell_out
from prunus.compiler.tune import LAYERS, Tuner, signature
from prunus.compiler.virtual import measured_ms
from prunus.errors import SchemeError, TargetError
from prunus.graph.ir import Graph, Node
from prunus.graph.load import load_model, naming
from prunus.kernels.library import isa_for, kernel_library
from prunus.runtime.cpu import describe
from prunus.runtime.session import check_threads
from prunus.sparsity.check import fits
from prunus.sparsity.project import random_mask
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme, parse


@dataclass(frozen=True)
class ExploreRow:
    """A layer under a scheme: milliseconds alone, masked and dense. `note` says why nothing was measured (ms None),
    `achieved` is the sparsity of the random mask, `count` how many layers of the network are alike."""

    layer: str
    shape: tuple[int, ...]
    count: int
    scheme: str
    sparsity: float
    achieved: float
    ms: float | None
    dense_ms: float
    note: str = ""


def explore(
    model: str | Path | bytes | onnx.ModelProto,
    schemes: Sequence[str | Scheme],
    sparsities: Sequence[float],
    *,
    threads: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    target: str | None = None,
    cc: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[ExploreRow]:
    """Yield a row per kind of layer, scheme and sparsity, as they are measured. Layers alike are measured once.

    Only layers that `prune_onnx` prunes are explored: ungrouped convolutions, matrix products, GRU and LSTM.
    Raises ModelError, SchemeError, TargetError: as `compile`.
    """
    parsed = [parse(scheme) if isinstance(scheme, str) else scheme for scheme in schemes]
    for sparsity in sparsities:
        if not 0 <= sparsity < 1:
            raise TargetError(f"sparsity {sparsity}: expected a fraction from 0 to below 1")
    target = target or describe().best_target
    if target is None:
        raise TargetError("no target runs on this CPU")
    isa = isa_for(target)
    if missing := describe().missing(target):
        raise TargetError(f"target {target!r}: this CPU lacks {' '.join(missing)}")
    with naming(model):
        graph = spell_out(read_at_batch_1(load_model(model), input_shapes, True))
    tuner = Tuner(isa, check_threads(threads), "fast", kernel_library(isa, cc), lambda _: "")
    for nodes in _kinds(graph):
        node, timed = nodes[0], _timer(tuner, graph, nodes[0])
        dense_ms = timed(None, 0.0)
        for scheme in parsed:
            for sparsity in sparsities:
                yield _row(timed, graph, node, len(nodes), scheme, sparsity, dense_ms)
                if progress:
                    progress(f"{node.name} {scheme} {sparsity}")


def full(layer: Layer) -> Layer:
    """The layer with random weights, none zero: it may have been pruned before."""
    weights = np.random.default_rng(0).uniform(0.5, 1.5, layer.matrix.shape)
    return replace(layer, matrix=weights.astype(np.float32))


Timer = Callable[[Scheme | None, float], float]


def _timer(tuner: Tuner, graph: Graph, node: Node) -> Timer:
    """Milliseconds of a node under a scheme, None: dense, and a sparsity that it can have."""
    if node.op == "recurrent":
        return lambda scheme, sparsity: measured_ms(node, graph, scheme, sparsity, tuner)
    layer, shape = full(layer_of(node, graph, tuner.isa)), graph.constants[node.attrs["weight"]].shape

    def timed(scheme: Scheme | None, sparsity: float) -> float:
        if scheme is None:
            return tuner.time_ms(layer, graph)
        mask = random_mask(shape, scheme, sparsity, seed=0).reshape(layer.matrix.shape)
        return tuner.time_ms(replace(layer, matrix=np.where(mask, layer.matrix, np.float32(0))), graph)

    return timed


def _row(
    timed: Timer, graph: Graph, node: Node, count: int, scheme: Scheme, sparsity: float, dense_ms: float
) -> ExploreRow:
    shape = graph.constants[node.attrs["weight"]].shape
    about = (node.name, shape, count, str(scheme), sparsity)
    refusal = fits(shape, scheme)
    if isinstance(refusal, Refusal):
        return ExploreRow(*about, 0.0, None, dense_ms, refusal.reason)
    if scheme.name == "n:m":
        sparsity = 1 - scheme.block[0] / scheme.block[1]
    try:
        mask = random_mask(shape, scheme, sparsity, seed=0)
    except SchemeError as error:  # pattern:4 takes away five of nine at least
        return ExploreRow(*about, 0.0, None, dense_ms, str(error))
    return ExploreRow(*about[:4], sparsity, 1 - float(mask.mean()), timed(scheme, sparsity), dense_ms)


def _kinds(graph: Graph) -> list[list[Node]]:
    """Ungrouped layers with weights, those alike together, in the order of the network."""
    kinds: dict[object, list[Node]] = {}
    for node in graph.nodes:
        kind = node.attrs.get("kind") if node.op == "recurrent" else None
        if node.op in LAYERS and node.attrs.get("group", 1) == 1 and kind != "rnn":
            kinds.setdefault((kind, *signature(node, graph)), []).append(node)
    return list(kinds.values())
