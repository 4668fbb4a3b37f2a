"""From an ONNX model to a session: read, choose, encode, lay out, bind."""

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from prunus.compiler.chains import Bench, find_chains
from prunus.compiler.latency import Latencies, Place
from prunus.compiler.lowering import Lowering, Wish
from prunus.compiler.schedule import Schedule, chains_of, check_layers, read_schedule
from prunus.compiler.steps import find_steps
from prunus.compiler.streaming import with_states_inside
from prunus.compiler.translate import Layer, spell_out, translate
from prunus.compiler.tune import LAYERS, Tuner, layer_shapes
from prunus.errors import FeedError, SchemeError, TargetError
from prunus.graph.ir import Graph, Node
from prunus.graph.load import load_model, naming
from prunus.graph.read import read
from prunus.kernels.library import cache_folder, isa_for, kernel_library
from prunus.runtime.artefact import pack
from prunus.runtime.cpu import Cpu, describe
from prunus.runtime.session import Session, check_threads
from prunus.runtime.streams import check_streams
from prunus.sparsity.check import check
from prunus.sparsity.detect import detect
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme, parse

TUNING = ("off", "fast", "full")
SCHEME_ROWS = 64  # of a layer that are looked at to name its scheme
Shapes = Mapping[str, tuple[int, ...]]


def compile(  # the contract's name; shadows the built-in here only
    model: str | Path | bytes | onnx.ModelProto,
    target: str | None = None,
    precision: str = "fp32",
    calibration: Iterable[Mapping[str, Any]] | None = None,
    threads: int | None = None,
    input_shapes: Shapes | None = None,
    tune: str = "fast",
    fallback: str | None = "onnxruntime",
    *,
    cc: str | None = None,
    calibration_method: str = "mse",
    error_budget: float | None = None,
    schedule: str | Path | None = None,
    streams: int = 1,
    streaming: bool = False,
    progress: Callable[[object], None] | None = None,
) -> Session:
    """Compile a model for this CPU (or `target`, which this CPU must run) and return a session.

    `progress` is called with what begins and what was found, as `str` tells it: a `Tuning` per step of the search, the
    name of a layer as mixed precision looks at it. `cc`: the C compiler's command. `schedule`: a file
    as `schedule_text` gives it; its layers are computed as it says, and not measured. `streams`: how many calls of
    `run` may run at the same time, each on `threads` threads.

    `streaming`: recurrent layers keep their states from one `run` to the next, until `Session.reset`; inputs that are
    but initial states and outputs that are but last states go.

    `precision` "int8" needs `calibration`, feeds as `Session.run` takes them, or a model in QDQ form; ranges are chosen
    by `calibration_method` "mse", "percentile" or "min-max". Layers that a precision can't compute run in fp32 with a
    PrunusWarning that names them; with `fallback` None they are refused. With an `error_budget`, a fraction of the
    outputs' root mean square on the calibration data, layers stay fp32 until the error is below it.
    Raises ModelError, UnsupportedError, TargetError, ToolchainError, ScheduleError, CalibrationError, FeedError:
    as their names say, in one line.
    """
    wish = Wish(precision, calibration, calibration_method, error_budget, fallback is None)
    if tune not in TUNING:
        raise TargetError(f"tune={tune!r}: expected one of {', '.join(TUNING)}")
    if fallback not in ("onnxruntime", None):
        raise TargetError(f"fallback={fallback!r}: expected 'onnxruntime' or None")
    streams = check_streams(streams)
    if streaming and streams > 1:
        raise TargetError(f"streams={streams}: a streaming session has one state, expected 1")
    threads = check_threads(threads, streams)
    cpu = describe()
    target = target or cpu.best_target
    if target is None:
        raise TargetError(f"no target for this CPU ({cpu.machine}): name one")
    isa = isa_for(target)
    if missing := cpu.missing(target):
        raise TargetError(f"target {target!r}: this CPU lacks {' '.join(missing)}")
    proto = load_model(model)
    if progress:
        progress("kernels, built once")
    code = kernel_library(isa, cc)
    latencies = None if tune == "off" else latencies_for(cpu, code, threads)
    pinned = read_schedule(schedule, isa, threads) if schedule is not None else Schedule({}, ())
    lowering = Lowering(wish, isa, code, threads, progress)
    describe_layer = partial(scheme_of, stated=stated_scheme(proto))
    tuner = Tuner(isa, threads, tune, code, describe_layer, progress, latencies, pinned.layers)

    def build(shapes: Shapes | None) -> Session:
        with naming(model):
            whole = read_at_batch_1(proto, shapes, fallback is not None, keep_steps=precision != "int8")
            graph = with_states_inside(whole) if streaming else whole
            graph, reasons = lowering.apply(graph)
        tuner.names = [node.name for node in graph.nodes if node.op in LAYERS]
        if schedule is not None and shapes == input_shapes:
            check_layers(schedule, pinned.layers, layer_shapes(graph, isa, threads), isa)
        program, constants = pack(translate(graph, isa, tuner.decide, reasons, streaming=streaming))
        if schedule is not None and shapes == input_shapes:
            program = replace(program, chains=chains_of(schedule, pinned.depth_first, program, threads))
        elif tune != "off":
            assert tuner.library and tuner.pool, "the target is this machine"
            bench = Bench(tuner.library, tuner.pool, threads, cpu.l2_bytes, latencies, progress)
            program = replace(program, chains=find_chains(program, constants, bench))
        fed = {name: whole.values[name].shape for name in whole.inputs}
        return Session(
            program, code, constants, threads, replan, streams, lambda: find_steps(proto, spell_out(graph), fed, again)
        )

    def again(shapes: Shapes) -> Graph:
        whole = read_at_batch_1(proto, shapes, fallback is not None, keep_steps=precision != "int8")
        graph, _ = lowering.apply(with_states_inside(whole) if streaming else whole, quiet=True)
        return spell_out(graph)

    def replan(fed: Shapes) -> Session:
        check_fixed_dimensions(proto, input_shapes or {}, fed)
        return build({**(input_shapes or {}), **fed})

    return build(input_shapes)


def latencies_for(cpu: Cpu, code: bytes, threads: int) -> Latencies:
    """The measured times that hold for this CPU, kernel library and number of threads."""
    machine = f"{cpu.name}, L1 {cpu.l1_bytes >> 10}, L2 {cpu.l2_bytes >> 10}, L3 {cpu.l3_bytes >> 10} KiB"
    place = Place(machine, hashlib.sha256(code).hexdigest()[:16], threads)
    found = Latencies(cache_folder() / "latency.sqlite", place)
    found.say_strangers()
    return found


def check_fixed_dimensions(proto: onnx.ModelProto, given: Shapes, fed: Shapes) -> None:
    """Raises FeedError: a fed shape is empty, or differs where the model, or what was given for it, is fixed."""
    for port in proto.graph.input:
        dims = port.type.tensor_type.shape.dim
        if port.name not in fed or not port.type.tensor_type.HasField("shape"):
            continue
        model = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]
        expected = [
            given[port.name][axis] if isinstance(dim, int) and port.name in given else dim
            for axis, dim in enumerate(model)
        ]
        found = fed[port.name]
        if any(n < 1 or (isinstance(dim, int) and dim != n) for dim, n in zip(expected, found, strict=True)):
            raise FeedError(f"input {port.name!r}: shape {list(found)}, expected {expected}")


def read_at_batch_1(proto: onnx.ModelProto, shapes: Shapes | None, fallback: bool, *, keep_steps: bool = True) -> Graph:
    """The graph; where the batch may change it is read at batch 1, for plans scale it. `keep_steps`: as `read`."""
    ports = {port.name for port in proto.graph.input}
    again = partial(read, proto, fallback=fallback, keep_steps=keep_steps, decline=lambda n: without_kernel(n, ports))
    graph = again(input_shapes=shapes)
    if graph.batch and shapes:
        ones = {name: (1, *shape[1:]) if shape else shape for name, shape in shapes.items()}
        graph = again(input_shapes=ones) if ones != dict(shapes) else graph
    return graph


def without_kernel(node: Node, ports: Container[str]) -> Refusal | None:
    """Why a node can't be compiled that the graph has an operator for. `ports`: the network's inputs."""
    if node.op == "recurrent" and "lengths" in node.attrs["given"] and node.inputs[-1] not in ports:
        return Refusal("its sequence lengths are computed")
    return None


def stated_scheme(proto: onnx.ModelProto) -> Scheme | None:
    """The scheme that `prune` wrote into the model, if any."""
    try:
        return next((parse(prop.value) for prop in proto.metadata_props if prop.key == "prunus.scheme"), None)
    except SchemeError:
        return None


def scheme_of(layer: Layer, stated: Scheme | None) -> str:
    """The scheme that a layer's zeros obey, for reports: the one that the model states, or else the most structured
    that its first rows tell."""
    pieces = layer.pieces or (layer.matrix.reshape(len(layer.matrix), -1, *layer.node.attrs.get("kernel", ())),)
    if all(weights.all() for weights in pieces):
        return "dense"
    if stated and all(check(weights != 0, stated) is None for weights in pieces):
        return str(stated)
    return str(detect(pieces[0][:SCHEME_ROWS])[0])
