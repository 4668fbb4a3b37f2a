"""Measured times for `costs.Latency`: each layer of a network alone, narrower and narrower, in Prunus's own kernels."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from prunus.compiler.compile import compile, latencies_for, read_at_batch_1
from prunus.compiler.explore import full
from prunus.compiler.latency import Latencies, as_json
from prunus.compiler.translate import layer_of, spell_out
from prunus.compiler.tune import FAST_BUDGET_S, Tuner, signature
from prunus.errors import TargetError
from prunus.graph.ir import Graph, Node
from prunus.graph.load import load_model
from prunus.kernels.isa import Isa
from prunus.kernels.library import isa_for, kernel_library
from prunus.runtime.cpu import describe
from prunus.runtime.session import Session, check_threads
from prunus.search.costs import Latency, Times
from prunus.training.export import export_onnx
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.trace import Inputs
from prunus.training.shrink.walk import Call

SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # of a layer's filters and channels that are timed
WARM, AT_LEAST = 3, 10  # calls
SECONDS = 0.5  # of timed calls

Tell = Callable[[str], None]


@final
@dataclass(frozen=True)
class Width:
    """Numbers of a layer's filters and channels: what a time in latency.sqlite is of."""

    filters: int
    channels: int


@final
@dataclass(frozen=True)
class Compiled:
    """A network in Prunus's engine, and milliseconds per call of it at batch 1, the median."""

    session: Session
    ms: float


def compiled(
    model: nn.Module, example_inputs: Inputs, threads: int | None = None, seconds: float = SECONDS
) -> Compiled:
    """The network exported, compiled with tune="fast" and timed on the first of the example inputs.

    Raises as `export_onnx` and `prunus.compile`.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    ones = tuple(x[:1] for x in inputs)
    feeds = {f"x{n or ''}": np.ascontiguousarray(x.detach().cpu().numpy()) for n, x in enumerate(ones)}
    shapes = {name: tuple(feed.shape) for name, feed in feeds.items()}
    session = compile(_onnx(model, inputs), threads=threads, input_shapes=shapes, tune="fast")
    for _ in range(WARM):
        session.run(None, feeds)
    found, end = list[float](), time.perf_counter() + seconds
    while len(found) < AT_LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        found.append(time.perf_counter() - start)
    return Compiled(session, 1e3 * median(found))


def latency(
    model: nn.Module,
    example_inputs: Inputs,
    groups: Groups,
    threads: int | None = None,
    progress: Tell | None = None,
    kept: Latencies | None = None,
) -> Latency:
    """What the network costs in milliseconds at batch 1; not calibrated yet.

    model: the one that `groups` are of, branches merged. kept: where times are and stay, else beside the kernels.
    Layers that aren't convolutions or matrix products in the engine are taken to need as long for a multiply-add as the
    others do. Raises TargetError: this CPU isn't one of Prunus's targets; and as `export_onnx` and `prunus.compile`.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    cpu, threads = describe(), check_threads(threads)
    if cpu.best_target is None:
        raise TargetError("no target runs on this CPU, so no time can be measured")
    isa = isa_for(cpu.best_target)
    code = kernel_library(isa)
    shapes = {f"x{n or ''}": (1, *x.shape[1:]) for n, x in enumerate(inputs)}
    graph = spell_out(read_at_batch_1(load_model(_onnx(model, inputs)), shapes, True))
    tuner = Tuner(isa, threads, "fast", code, lambda _: "")
    clock = _Clock(tuner, graph, isa, kept or latencies_for(cpu, code, threads))
    nodes = match(groups, graph)
    tables: list[Times | None] = []
    for number, (call, node) in enumerate(zip(groups.calls, nodes, strict=True)):
        if progress:
            progress(f"layer {number + 1} of {len(nodes)}, {call.weight}")
        tables.append(None if node is None else clock.times(node, *grid(groups, call)))
    return Latency(groups, _filled(groups, tables))


def match(groups: Groups, graph: Graph) -> list[Node | None]:
    """The node of the graph that each of groups.calls became; None where it became none or several.

    By the weight's name; where BatchNorm was folded names are lost, and the next one of the same shape is taken.
    """
    left = [node for node in graph.nodes if node.op in ("conv", "gemm")]
    found: list[Node | None] = []
    for call in groups.calls:
        shape = groups.shapes[call.weight]
        alike = [node for node in left if _alike(graph.constants[node.attrs["weight"]].shape, shape)]
        named = [node for node in alike if node.attrs["weight"] == call.weight]
        node = next(iter(named or alike), None) if call.filters == 0 else None
        if node is not None:
            left.remove(node)
        found.append(node)
    return found


def _alike(ours: Sequence[int], shape: Sequence[int]) -> bool:
    return tuple(ours[:2]) == tuple(shape[:2]) and int(np.prod(ours)) == int(np.prod(shape))


def grid(groups: Groups, call: Call) -> tuple[list[int], list[int], int]:
    """Numbers of filters and of channels of each group to time, ascending; and of the filters that go together with a
    group of a grouped convolution, 0 where its groups stay."""
    name, shape = call.weight, groups.shapes[call.weight]
    n_groups = len(groups.widths[name]) // shape[1] if name in groups.widths else 1
    whole = name in groups.widths and (name, 1) not in groups.ties  # groups go as a whole, of a depthwise one channels
    step = shape[0] // n_groups if whole else 0
    rows = _steps(shape[0], step or n_groups) if _may_go(groups, name, 0) else [shape[0]]
    columns = _steps(shape[1], 1) if _may_go(groups, name, 1) else [shape[1]]
    return rows, columns, step


def _may_go(groups: Groups, name: str, dim: int) -> bool:
    return (name, dim) in groups.counts and bool(groups.counts[name, dim].any())


def _steps(n: int, step: int) -> list[int]:
    return sorted({max(step, round(n * share / step) * step) for share in SHARES})


def narrower(node: Node, graph: Graph, filters: int, channels: int, step: int) -> tuple[Node, Graph]:
    """A node with fewer filters and channels per group, and the graph in which it is like that; weights are random.

    step: as `grid` gives it.
    """
    attrs, weight = dict(node.attrs), graph.constants[node.attrs["weight"]]
    if step:
        attrs["group"] = filters // step
    rng = np.random.default_rng(0)
    made = {attrs["weight"]: rng.uniform(0.5, 1.5, (filters, channels, *weight.shape[2:])).astype(np.float32)}
    for key in ("bias", "slope"):
        if attrs.get(key) is not None and graph.constants[attrs[key]].shape == weight.shape[:1]:
            made[attrs[key]] = graph.constants[attrs[key]][:filters]
    values = dict(graph.values)
    source, (result, *_) = node.inputs[0], node.outputs
    shape, out = list(values[source].shape), list(values[result].shape)
    if node.op == "conv":
        shape[1], out[1] = channels * int(attrs.get("group", 1)), filters
    else:
        pixels = weight.shape[1] // shape[1] if len(shape) == 4 and weight.shape[1] != shape[-1] else 0
        if pixels:  # a feature map, read as one row
            shape[1] = max(1, channels // pixels)
            made[attrs["weight"]] = np.resize(made[attrs["weight"]], (filters, shape[1] * pixels))
        else:
            shape[-1] = channels
        out[-1 if not pixels else 1] = filters
    values[source] = replace(values[source], shape=tuple(shape))
    for name in (*node.inputs[1:], result):  # a residual is as the result
        values[name] = replace(values[name], shape=tuple(out))
    return replace(node, attrs=attrs), replace(graph, values=values, constants={**graph.constants, **made})


@final
class _Clock:
    """Measures nodes of a graph; each kind once."""

    def __init__(self, tuner: Tuner, graph: Graph, isa: Isa, kept: Latencies) -> None:
        self._tuner, self._graph, self._isa, self._kept = tuner, graph, isa, kept

    def times(self, node: Node, filters: list[int], channels: list[int], step: int) -> Times:
        """Of all widths; a layer that is narrower is never slower."""
        kind = repr(("narrower", *signature(node, self._graph), step))
        known = self._kept.find(kind, FAST_BUDGET_S)
        ms = np.zeros((len(filters), len(channels)))
        for row, n_filters in enumerate(filters):
            for column, n_channels in enumerate(channels):
                width = Width(n_filters, n_channels)
                seconds = known.get(as_json(width))
                if seconds is None:
                    own, graph = narrower(node, self._graph, n_filters, n_channels, step)
                    seconds = 1e-3 * self._tuner.time_ms(full(layer_of(own, graph, self._isa)), graph)
                    self._kept.add(kind, FAST_BUDGET_S, {width: seconds})
                ms[row, column] = 1e3 * seconds
        ms = np.maximum.accumulate(np.maximum.accumulate(ms, 0), 1)
        return Times(np.array(filters, np.float64), np.array(channels, np.float64), ms)


def _filled(groups: Groups, tables: Sequence[Times | None]) -> list[Times]:
    """Times for those that have none, in proportion to their multiply-adds."""
    n_macs = [call.positions * float(np.prod(groups.shapes[call.weight])) for call in groups.calls]
    spent = [(table.ms[-1, -1], n) for table, n in zip(tables, n_macs, strict=True) if table is not None]
    per_mac = sum(ms for ms, _ in spent) / max(sum(n for _, n in spent), 1.0) if spent else 1e-6
    found = []
    for call, table, n in zip(groups.calls, tables, n_macs, strict=True):
        if table is None:
            rows, columns = (np.array([0.0, float(extent)]) for extent in groups.shapes[call.weight][:2])
            table = Times(rows, columns, np.array([[0.0, 0.0], [0.0, n * per_mac]]))
        found.append(table)
    return found


def _onnx(model: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.onnx"
        export_onnx(model, path, inputs)
        return path.read_bytes()
