"""Measuring: a layer alone, with its real weights, for each candidate choice on this machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.choice import Choice, LayerShape, Zeros, candidates, examine
from prunus.compiler.latency import Latencies, as_json
from prunus.compiler.neighbours import neighbours
from prunus.compiler.recurrent import apart, as_product, over_time, stacked
from prunus.compiler.schedule import refusal
from prunus.compiler.translate import Decision, Layer, layer_of, spell_out, translate
from prunus.compiler.watch import Tuning
from prunus.graph.ir import Format, Graph, Node, Value
from prunus.kernels.isa import Isa
from prunus.runtime.artefact import pack
from prunus.runtime.lower.winograd import phases_of
from prunus.runtime.native import Bound, Library, Memory, Pool, open_library
from prunus.runtime.plan import make_plan
from prunus.sparsity.winograd import Form, form_of

Floats = NDArray[np.float32]
LAYERS = ("conv", "gemm", "recurrent")  # operators with weights
EVICT_BYTES = 4 << 20
FAR_BEHIND = 1.3
SHORT_S = 1e-4  # a run that one interruption makes several times as long
SMALL = 28  # pixels of a line of a map over which rows may be better lanes than pixels
FEW_CHANNELS = 16  # for tiles of 4x4: errors of 7e-6 of the largest output, 5e-5 at 512
STEPS = 3  # of a full search from the best candidate on
FAST_BUDGET_S, FULL_BUDGET_S = 0.02, 0.5  # per candidate


@dataclass
class Tuner:
    """Chooses for each layer: by the cost model alone ("off"), by measuring its candidates ("fast"), or by measuring
    them longer and going on from the best, as long as a step is faster ("full").

    Layers alike in shape and zeros share a decision. `code` is the kernel library, None where the target isn't this
    machine: then nothing is measured.
    """

    isa: Isa
    threads: int
    mode: str
    code: bytes | None
    describe: Callable[[Layer], str]
    progress: Callable[[Tuning], None] | None = None
    latencies: Latencies | None = None
    pinned: Mapping[str, Choice] = field(default_factory=dict)
    known: dict[object, Decision] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of all layers of the network, for who watches

    def __post_init__(self) -> None:
        # Read before each measurement: in a network, what a layer reads and writes isn't in the nearest caches.
        self.evict = np.ones(EVICT_BYTES // 4, np.float32)  # zeros would be one page, mapped many times
        self.library: Library | None = open_library(self.code) if self.code else None
        self.pool = Pool(self.library, self.threads) if self.library else None

    def decide(self, layer: Layer, graph: Graph) -> Decision:
        """The choice for a layer of `graph`."""
        shape, zeros = layer_shape(layer, graph, self.isa, self.threads), examine(layer.encoded)
        pinned = self.pinned.get(layer.node.name)
        if pinned and refusal(pinned, shape, self.isa) is None:
            return Decision(pinned, self.describe(layer), "pinned by the schedule")
        key = (signature(layer.node, graph), shape, round(zeros.density, 2), round(zeros.sharing), zeros.block)
        if key not in self.known:
            self.known[key] = replace(self._choose(layer, graph, shape, zeros, key), scheme=self.describe(layer))
        else:
            self._say(layer, graph, choice=str(self.known[key].choice), ms=self.known[key].measured_ms)
        return self.known[key]

    def _say(self, layer: Layer, graph: Graph, times: Mapping[Choice, float] | None = None, **more: Any) -> None:
        """Tell who watches where the search is, with the fastest of `times`, whose first is first by the cost model."""
        if self.progress is None:
            return
        names = self.names or [node.name for node in graph.nodes if node.op in LAYERS]
        if times:
            best, first = min(times, key=times.__getitem__), next(iter(times.values()))
            more |= {"choice": str(best), "ms": 1e3 * times[best], "tried": len(times), "gain": first / times[best]}
        self.progress(Tuning(layer.node.name, names.index(layer.node.name), len(names), **more))

    def time_ms(self, layer: Layer, graph: Graph) -> float:
        """Milliseconds of the layer alone, by the fastest candidate."""
        shape, zeros = layer_shape(layer, graph, self.isa, self.threads), examine(layer.encoded)
        return 1e3 * min(self._measure(layer, graph, candidates(shape, zeros, self.isa), FAST_BUDGET_S).values())

    def _choose(self, layer: Layer, graph: Graph, shape: LayerShape, zeros: Zeros, key: object) -> Decision:
        options = candidates(shape, zeros, self.isa)
        if self.mode == "off" or self.library is None or self.pool is None or len(options) == 1:
            self._say(layer, graph, choice=str(options[0]))
            reason = "only candidate" if len(options) == 1 else "first by the cost model, not measured"
            return Decision(options[0], "", reason)
        self._say(layer, graph, measuring=len(options))
        times, when = self._times(layer, graph, options, key)
        for _ in range(STEPS if self.mode == "full" else 0):
            best = min(times, key=times.__getitem__)
            near = [choice for choice in neighbours(best, shape, self.isa) if choice not in times]
            if not near:
                break
            self._say(layer, graph, times, measuring=len(near))
            times |= self._near_times(layer, graph, best, times[best], near, key)
        self._say(layer, graph, times)
        ranked = sorted(times, key=times.__getitem__)
        best = ranked[0]
        refused = tuple((str(c), f"measured {times[c] * 1e3:.3f} ms") for c in ranked[1:])
        return Decision(
            best, "", f"fastest of {len(ranked)}: measured{when} {times[best] * 1e3:.3f} ms", refused, times[best] * 1e3
        )

    def _times(self, layer: Layer, graph: Graph, options: list[Choice], key: object) -> tuple[dict[Choice, float], str]:
        """Seconds of each option, and "" or " before": kept ones where all are known, else measured now and kept."""
        budget_s = FAST_BUDGET_S if self.mode == "fast" else FULL_BUDGET_S
        if self.latencies is None:
            return self._measure(layer, graph, options, budget_s), ""
        kept = self.latencies.find(repr(key), budget_s)
        if all(as_json(choice) in kept for choice in options):
            return {choice: kept[as_json(choice)] for choice in options}, " before"
        times = self._measure(layer, graph, options, budget_s)
        self.latencies.add(repr(key), budget_s, times)
        return times, ""

    def _near_times(
        self, layer: Layer, graph: Graph, best: Choice, seconds: float, near: list[Choice], key: object
    ) -> dict[Choice, float]:
        """Seconds of choices near the best so far, which took `seconds`: measured beside it and in its measure, for the
        machine's pace changes from one measurement to the next."""
        kept = self.latencies.find(repr(key), FULL_BUDGET_S) if self.latencies else {}
        if all(as_json(choice) in kept for choice in near):
            return {choice: kept[as_json(choice)] for choice in near}
        measured = self._measure(layer, graph, [best, *near], FULL_BUDGET_S)
        times = {choice: measured[choice] * seconds / measured[best] for choice in near}
        if self.latencies:
            self.latencies.add(repr(key), FULL_BUDGET_S, times)
        return times

    def _measure(self, layer: Layer, graph: Graph, options: list[Choice], budget_s: float) -> dict[Choice, float]:
        """Seconds of the layer alone for each option: the least over rounds, in each of which every option has its
        turn, so that a slow moment of the machine strikes all alike. At least 3 rounds, and `budget_s` per option.
        Those far behind are left out after a few: one slow moment may strike neighbours, and short runs twice."""
        assert self.library is not None and self.pool is not None
        lone = alone(layer, graph)
        rng = np.random.default_rng(0)
        ports = [rng.standard_normal(lone.values[name].shape, np.float32) for name in (*lone.inputs, *lone.outputs)]
        packed = [pack(translate(lone, self.isa, lambda *_, c=choice: Decision(c, "", ""))) for choice in options]
        plans = [make_plan(program) for program, _ in packed]
        memory = Memory(plans, self.threads)  # the same for all, or they would throw each other out of the last cache
        runs = [
            Bound(self.library, plan, constants, self.threads, memory)
            for plan, (_, constants) in zip(plans, packed, strict=True)
        ]
        best = [float("inf")] * len(options)
        start, rounds = time.perf_counter(), 0
        while rounds < 4 or (time.perf_counter() - start < budget_s * len(options) and rounds < 30):
            for i, run in enumerate(runs):
                if rounds > (2 if best[i] > SHORT_S else 8) and best[i] > FAR_BEHIND * min(best):
                    continue
                times = np.zeros(len(run.plan.slots), np.int64)
                self.evict.sum()
                self.pool.gather()  # in a network threads are awake
                run.run(self.pool, run.plan.stages[0], ports, times)
                if rounds:  # the first one warms up
                    own = np.array([slot.op for slot in run.plan.slots]) == len(
                        lone.inputs
                    )  # the layer, behind the copies of its inputs
                    best[i] = min(best[i], float(times[own].sum()) * 1e-9)
            rounds += 1
        return dict(zip(options, best, strict=True))


def alone(layer: Layer, graph: Graph) -> Graph:
    """A graph of the layer only: its input copied from outside, so that it lies as it would in the network."""
    node = layer.node
    copies = [_copy("in", graph.values[node.inputs[0]].format, "x", "a")]
    values = [replace(graph.values[old], name=new) for old, new in zip(node.inputs, ("a", "b"), strict=False)]
    values.append(replace(graph.values[node.outputs[0]], name="y"))
    if len(node.inputs) > 1:  # a residual
        copies.append(_copy("residual", graph.values[node.inputs[1]].format, "z", "b"))
    values += [Value(copy.inputs[0], value.shape) for copy, value in zip(copies, values, strict=False)]
    weight = graph.constants[node.attrs["weight"]]
    constants = {**graph.constants, "weight": layer.matrix.reshape(weight.shape)}
    scales = {"weight": graph.scales[node.attrs["weight"]]} if node.attrs["weight"] in graph.scales else {}
    inside = tuple(copy.outputs[0] for copy in copies)
    node = replace(node, inputs=inside, outputs=("y",), attrs={**node.attrs, "weight": "weight"})
    inputs, named = tuple(c.inputs[0] for c in copies), {value.name: value for value in values}
    return Graph("alone", inputs, ("y",), (*copies, node), named, constants, scales=scales)


def _copy(name: str, form: Format | None, source: str, target: str) -> Node:
    return Node("identity" if form is None else "pack", name, (source,), (target,))


def signature(node: Node, graph: Graph) -> tuple[object, ...]:
    """What two layers must have in common to run alike, their zeros aside."""
    attrs = node.attrs
    spatial = tuple(tuple(attrs[key]) for key in ("kernel", "strides", "pads", "dilations") if key in attrs)
    packs = tuple(form.pack if (form := graph.values[name].format) else 1 for name in (*node.inputs, *node.outputs))
    shapes = (graph.values[node.inputs[0]].shape, graph.values[node.outputs[0]].shape)
    return (node.op, len(node.inputs), *shapes, spatial, *(packs if max(packs) > 1 else ()))


def layer_shape(layer: Layer, graph: Graph, isa: Isa, threads: int) -> LayerShape:
    """The sizes of a layer that candidates depend on."""
    out = graph.values[layer.node.outputs[0]].shape
    vectors = tile_vectors = positions = planes = 0
    if layer.node.op == "conv" and out[2] * out[3] > 1:
        reach = max(abs(p) for p in layer.node.attrs["pads"])
        vectors = -(-((out[2] - 1) * (out[3] + reach) + out[3]) // isa.lanes)
        if layer.packed is None and (form := winograd_form(layer)):
            tile_vectors = -(-(-(-out[2] // form.side) * -(-out[3] // form.side)) // isa.lanes)
            attrs = layer.node.attrs
            planes = layer.matrix.shape[1] // int(np.prod(attrs["kernel"])) * len(phases_of(attrs))
            positions = form.positions
    if layer.packed is not None:
        pack, lone = layer.packed.pack, layer.packed.lone
        return LayerShape(
            len(layer.encoded), layer.packed.columns, layer.groups, vectors, threads, pack=pack, lone=lone
        )
    m, k = layer.matrix.shape
    window = vectors > 0 and window_applies(layer)
    small = vectors > 0 and layer.groups == 1 and out[3] <= SMALL
    return LayerShape(
        m, k * layer.groups, layer.groups, vectors, threads, tile_vectors, window=window, flat=layer.node.op == "gemm",
        line=out[3] if small else 0, again=bool(layer.node.attrs.get("again")),
        value_bytes=4 if layer.held is None else layer.held.n_bytes, tile_positions=positions, tile_planes=planes,
    )  # fmt: skip


def layer_shapes(graph: Graph, isa: Isa, threads: int) -> dict[str, LayerShape]:
    """The sizes of all layers by name."""
    graph = spell_out(graph)
    return {
        product.name: layer_shape(layer_of(product, own, isa), own, isa, threads)
        for node in graph.nodes
        if node.op in LAYERS
        for product, own in products(node, graph)
    }


def products(node: Node, graph: Graph) -> list[tuple[Node, Graph]]:
    """What is tuned of a layer: itself, or the products of a recurrent one."""
    if node.op != "recurrent":
        return [(node, graph)]
    made = stacked(node, graph)
    parts = apart(node, graph, made)
    if parts is None:
        return [as_product(node, graph, made.matrix)]
    return [as_product(node, graph, parts.recurrence, again=True), over_time(node, graph, parts)]


def window_applies(layer: Layer) -> bool:
    """A convolution with as many groups as channels, of a size and stride that `kernels/c/depthwise.h` has."""
    attrs, filters = layer.node.attrs, layer.matrix
    kernel, strides = tuple(attrs["kernel"]), tuple(attrs["strides"])
    one_each = layer.groups > 1 and filters.shape[1] == kernel[0] * kernel[1]
    sizes = kernel in ((3, 3), (5, 5)) and strides in ((1, 1), (2, 2)) and tuple(attrs["dilations"]) == (1, 1)
    return one_each and sizes


def winograd_form(layer: Layer) -> Form | None:
    """How an ungrouped convolution can be computed by tiles; those of 4x4 lose digits where channels are many."""
    attrs = layer.node.attrs
    form = form_of(attrs["kernel"], attrs["strides"], attrs["dilations"]) if layer.groups == 1 else None
    channels = layer.matrix.shape[1] // int(np.prod(attrs["kernel"]))
    return None if form is not None and form.side == 4 and channels > FEW_CHANNELS else form
