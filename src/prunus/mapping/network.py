"""A model as mapping sees it: its layers with weights, in order, and how each is computed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from onnx import ModelProto

from prunus.compiler.compile import latencies_for, read_at_batch_1
from prunus.compiler.lowering import Lowering, Wish
from prunus.compiler.translate import spell_out
from prunus.compiler.tune import LAYERS, Tuner, signature
from prunus.errors import ModelError, TargetError
from prunus.graph.ir import Graph, Node
from prunus.graph.load import load_model, naming
from prunus.kernels.isa import Isa
from prunus.kernels.library import isa_for, kernel_library
from prunus.mapping.keep import Kept, now
from prunus.pruning.onnx_weights import FLOATS, Weight, weights
from prunus.runtime.cpu import describe
from prunus.runtime.session import check_threads


@final
@dataclass(frozen=True, eq=False)
class Site:
    """A layer: its ONNX node's name and operator, its weights as the file has them, and the graph's nodes that compute
    with them: several where layers share weights, or for both directions of a recurrent one.

    layers: names of all nodes that read these weights, its own first. shape: of the first weights, filters first.
    signature: what layers that run alike have in common. refusal: why it can't be pruned, "" where it can. first, last:
    the convolution that comes first of those, the classifier behind all.
    """

    name: str
    layers: tuple[str, ...]
    op: str
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]
    shape: tuple[int, ...]
    macs: int
    signature: str
    refusal: str = ""
    first: bool = False
    last: bool = False

    @property
    def kernel(self) -> tuple[int, ...]:
        """Height and width of a convolution's kernel, () of other layers."""
        return self.shape[2:]


@final
@dataclass(frozen=True, eq=False)
class Network:
    """A model read for mapping: file, graph in the precision asked for, and its layers. since: kept times from before
    that date aren't used."""

    model: ModelProto
    graph: Graph
    sites: tuple[Site, ...]
    precision: str
    isa: Isa
    threads: int
    code: bytes
    calibration: tuple[Mapping[str, Any], ...] | None
    input_shapes: Mapping[str, tuple[int, ...]] | None
    since: str = ""

    @property
    def here(self) -> bool:
        """Can this CPU run the target?"""
        return not describe().missing(self.isa.target)

    def tuner(self) -> Tuner:
        """What layers are measured with.

        Raises TargetError: this CPU can't run the target.
        """
        if missing := describe().missing(self.isa.target):
            raise TargetError(f"target {self.isa.target!r}: this CPU lacks {' '.join(missing)}")
        return Tuner(self.isa, self.threads, "fast", self.code, lambda _: "")

    def kept(self) -> Kept:
        """The file of measured times, for this CPU."""
        return Kept(latencies_for(describe(), self.code, self.threads), self.isa.target, self.precision, self.since)


def read_network(
    model: str | Path | bytes | ModelProto,
    *,
    precision: str = "fp32",
    calibration: Iterable[Mapping[str, Any]] | None = None,
    threads: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    target: str | None = None,
    cc: str | None = None,
    progress: Callable[[object], None] | None = None,
    fresh: bool = False,
) -> Network:
    """Read a model for mapping, at batch 1. fresh: times that were kept before now are measured again.

    Raises ModelError: unreadable, or without a layer that could be pruned. TargetError, CalibrationError: as `compile`,
    but for targets that aren't here, which are estimated.
    """
    threads = check_threads(threads)
    target = target or describe().best_target
    if target is None:
        raise TargetError("no target runs on this CPU: name one")
    isa = isa_for(target)
    proto = load_model(model)
    foreign = bool(describe().missing(target))
    if foreign and precision == "int8" and calibration is not None:
        raise TargetError(f"target {target!r}: ranges for int8 can't be calibrated here, expected a model in QDQ form")
    code = b"" if foreign else kernel_library(isa, cc)  # nothing runs there
    feeds = None if calibration is None else tuple(calibration)
    with naming(model):
        graph = read_at_batch_1(proto, input_shapes, True, keep_steps=precision != "int8")
        graph, _ = Lowering(Wish(precision, feeds), isa, code, threads, progress).apply(graph)
        found = _sites(proto, spell_out(graph))
        if not any(not site.refusal for site in found):
            said = f"; {found[0].name}: {found[0].refusal}" if found else ""
            raise ModelError(f"no layer that could be pruned: expected a Conv, Gemm, MatMul, GRU or LSTM{said}")
    return Network(
        proto, spell_out(graph), found, precision, isa, threads, code, feeds, input_shapes, now() if fresh else ""
    )


def _sites(proto: ModelProto, graph: Graph) -> tuple[Site, ...]:
    by_layer: dict[str, list[Weight]] = defaultdict(list)
    for weight in weights(proto):
        by_layer[weight.layer].append(weight)
    nodes: dict[str, list[Node]] = {}  # of an ONNX node, in the order of the network
    for node in graph.nodes:
        if node.op in LAYERS:
            layer = node.name
            if node.op == "recurrent" and layer not in by_layer:
                layer = layer.rpartition(".")[0]
            nodes.setdefault(layer, []).append(node)
    sharing: dict[str, list[str]] = {}  # of weights that several layers read
    for layer in nodes:
        key = by_layer[layer][0].name if by_layer[layer] else layer
        sharing.setdefault(key, []).append(layer)
    groups = [(layers, tuple(node for layer in layers for node in nodes[layer])) for layers in sharing.values()]
    open_to = [layer for (layer, *_), computed in groups if not _refusal(by_layer[layer], computed)]
    return tuple(
        _site(layers, by_layer[layers[0]], computed, graph, layers[0] in open_to[:1], layers[0] in open_to[-1:])
        for layers, computed in groups
    )


def _site(
    layers: list[str], found: list[Weight], nodes: tuple[Node, ...], graph: Graph, first: bool, last: bool
) -> Site:
    constant = graph.constants[nodes[0].attrs["weight"]]
    op = found[0].node.op_type if found else nodes[0].op
    macs = sum(_macs(node, graph) for node in nodes)
    refusal = _refusal(found, nodes)
    alike = repr([(*signature(node, graph), graph.constants[node.attrs["weight"]].shape) for node in nodes])
    pointwise = nodes[0].op == "conv" and constant.shape[2:] == (1, 1)  # fully convolutional classifiers end so
    first, last = first and nodes[0].op == "conv", last and (nodes[0].op == "gemm" or pointwise)
    shape = tuple(constant.shape)
    return Site(layers[0], tuple(layers), op, tuple(found), nodes, shape, macs, alike, refusal, first, last)


def _refusal(found: list[Weight], nodes: tuple[Node, ...]) -> str:
    if any(node.attrs.get("group", 1) != 1 for node in nodes):
        return "depthwise or grouped"
    if not found:
        return "its weights are computed, or it is no layer that is pruned"
    if any(weight.tensor.data_type not in FLOATS for weight in found):
        return "its weights aren't floats"
    return ""


def _macs(node: Node, graph: Graph) -> int:
    """Multiply-adds of a node with all its weights."""
    weight = graph.constants[node.attrs["weight"]]
    out = graph.values[node.outputs[0]].shape
    if node.op == "conv":
        return int(weight.size * np.prod(out[2:]))
    if node.op == "recurrent":
        return int((weight.size + graph.constants[node.attrs["recurrence"]].size) * np.prod(out[:2]))
    return int(weight.size * np.prod(out[:-1]))
