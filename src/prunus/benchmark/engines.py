"""The engines that are raced, each behind the same call. A new engine is a class and a row here."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

from numpy.typing import NDArray

from prunus.benchmark.feeds import Feeds, onnx_inputs, resolve_shapes
from prunus.benchmark.frameworks import Torch, Tvm
from prunus.benchmark.peers import LiteRt, Mnn, Ncnn
from prunus.benchmark.refusals import EngineRefusal, NotInstalled, first_line
from prunus.benchmark.sessions import Setting, is_artefact, open_session
from prunus.errors import UnsupportedError
from prunus.extras import extra_of, install_command
from prunus.runtime.streams import Turns


class Engine(Protocol):
    """An opened model. `run` returns all outputs in order, as arrays of the caller's own; as many callers at the same
    time as the setting has streams.
    """

    def run(self, feeds: Feeds) -> list[NDArray[Any]]: ...


@final
@dataclass(frozen=True)
class EngineKind:
    """A row of ENGINES: the packages it needs, and what opens a model in it.

    batches: takes a batch other than 1. streams: takes several callers at the same time. install: how to get it, where
    no extra of ours brings it.
    """

    packages: tuple[str, ...]
    open: Callable[[Path, Setting], Engine]
    batches: bool = True
    streams: bool = False
    install: str = ""


@final
class Prunus:
    """This package; the only engine that takes artefacts."""

    def __init__(self, model: Path, setting: Setting) -> None:
        self.session = open_session(model, setting)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return self.session.run(None, feeds)


@final
class OnnxRuntime:
    """CPU provider, as it comes: full graph optimisation, spinning threads. A session per stream."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
        options.log_severity_level = 3
        refusals = (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
        try:
            self.sessions = Turns(
                [
                    onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
                    for _ in range(setting.streams)
                ]
            )
        except refusals as error:
            raise EngineRefusal(f"onnxruntime: {model.name}: {first_line(error)}") from error

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        with self.sessions.take() as session:
            return list(session.run(None, feeds))


@final
class OpenVino:
    """CPU plugin, latency hint, for several streams throughput hint; the shapes are made static, as its own tool does.

    precision: of what isn't in QDQ form, "f32" or "bf16"; a CPU that would silently run bf16 as f32 is refused.
    """

    def __init__(self, model: Path, setting: Setting, precision: str = "f32") -> None:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": setting.threads * setting.streams,
            "INFERENCE_PRECISION_HINT": precision,
        }
        if setting.streams > 1:
            options |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": setting.streams}
        core = openvino.Core()
        try:
            network = core.read_model(str(model))
            if network.is_dynamic():
                network.reshape({name: list(shape) for name, shape in setting.shapes.items()})
            compiled = core.compile_model(network, "CPU", options)
        except RuntimeError as error:
            raise EngineRefusal(f"openvino: {model.name}: {first_line(error)}") from error
        in_force = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if in_force != precision:
            raise EngineRefusal(f"openvino-{precision}: {model.name}: runs as {in_force} on this CPU")
        self.requests = Turns([compiled.create_infer_request() for _ in range(setting.streams)])
        self.outputs = compiled.outputs

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        with self.requests.take() as request:
            results = request.infer(feeds, share_inputs=True, share_outputs=False)
            return [results[output] for output in self.outputs]


@final
class DeepSparse:
    """DeepSparse 1.8, the last release that has an engine; closed source, x86-64 and Python 3.11 at most."""

    def __init__(self, model: Path, setting: Setting) -> None:
        from deepsparse import compile_model

        ports = onnx_inputs(model)
        shapes = resolve_shapes(ports, setting.shapes, model=str(model))
        self.names, batch = list(shapes), next((shape[0] for shape in shapes.values() if shape), 1)
        try:
            self.engine = compile_model(str(model), batch_size=batch, num_cores=setting.threads)
        except RuntimeError as error:
            raise EngineRefusal(f"deepsparse: {model.name}: {first_line(error)}") from error

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return list(self.engine.run([feeds[name] for name in self.names]))


ENGINES: Mapping[str, EngineKind] = {
    "prunus": EngineKind((), Prunus, streams=True),
    "onnxruntime": EngineKind(("onnxruntime",), OnnxRuntime, streams=True),
    "openvino": EngineKind(("openvino",), OpenVino, streams=True),
    "openvino-bf16": EngineKind(("openvino",), partial(OpenVino, precision="bf16"), streams=True),
    "ncnn": EngineKind(("ncnn", "pnnx"), Ncnn, batches=False),
    "mnn": EngineKind(("MNN",), Mnn, batches=False),
    "litert": EngineKind(("ai_edge_litert",), LiteRt, batches=False),
    "torch": EngineKind(("torch",), Torch),
    "torch-compile": EngineKind(("torch",), partial(Torch, compiled=True)),
    "tvm": EngineKind(("tvm",), Tvm, install="pip install apache-tvm, or a build of it"),
    "deepsparse": EngineKind(("deepsparse",), DeepSparse, install='pip install "deepsparse==1.8.0"'),
}
DEFAULT = ("prunus", "onnxruntime", "openvino")  # what a race has where nothing is said


def missing(engine: str) -> NotInstalled | None:
    """Why an engine of ENGINES can't be opened here; None when it can."""
    for package in ENGINES[engine].packages:
        if importlib.util.find_spec(package) is None:
            how = ENGINES[engine].install or install_command(extra_of(package) or "peers")
            return NotInstalled(f"{engine}: not installed ({how})")
    return None


def open_engine(engine: str, model: Path, setting: Setting) -> Engine:
    """A model opened in an engine of ENGINES.

    Raises NotInstalled: its package is missing. EngineRefusal: it doesn't take the model, or several callers.
    PrunusError: as `prunus.compile` and `prunus.load` do.
    """
    if absent := missing(engine):
        raise absent
    if engine != "prunus" and is_artefact(model):
        raise UnsupportedError(f"{model}: an artefact runs in prunus only, not in {engine}")
    if setting.streams > 1 and not ENGINES[engine].streams:
        raise EngineRefusal(f"{engine}: {model.name}: takes one call at a time here, not {setting.streams} streams")
    return ENGINES[engine].open(model, setting)
