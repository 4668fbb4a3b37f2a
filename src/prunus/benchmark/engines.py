"""The engines that are raced, each behind the same call. A new engine is a class and a row here."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from numpy.typing import NDArray

from prunus.benchmark.feeds import Feeds
from prunus.benchmark.sessions import Setting, is_artefact, open_session
from prunus.errors import PrunusError, UnsupportedError
from prunus.extras import extra_of, install_command


@final
class NotInstalled(PrunusError):
    """An engine whose package isn't there: says what to install."""


@final
class EngineRefusal(PrunusError):
    """An engine that doesn't take the model: says what it said."""


class Engine(Protocol):
    """An opened model. `run` returns all outputs in order, as arrays of the caller's own."""

    def run(self, feeds: Feeds) -> list[NDArray[Any]]: ...


@final
@dataclass(frozen=True)
class EngineKind:
    """A row of ENGINES: the packages it needs, and what opens a model in it."""

    packages: tuple[str, ...]
    open: Callable[[Path, Setting], Engine]


@final
class Prunus:
    """This package; the only engine that takes artefacts."""

    def __init__(self, model: Path, setting: Setting) -> None:
        self.session = open_session(model, setting)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return self.session.run(None, feeds)


@final
class OnnxRuntime:
    """CPU provider, as it comes: full graph optimisation, spinning threads."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
        options.log_severity_level = 3
        refusals = (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
        try:
            self.session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        except refusals as error:
            raise EngineRefusal(f"onnxruntime: {model.name}: {_first_line(error)}") from error

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return list(self.session.run(None, feeds))


@final
class OpenVino:
    """CPU plugin, latency hint, fp32; the shapes are made static, as its own tool does."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": setting.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        core = openvino.Core()
        try:
            network = core.read_model(str(model))
            if network.is_dynamic():
                network.reshape({name: list(shape) for name, shape in setting.shapes.items()})
            compiled = core.compile_model(network, "CPU", options)
        except RuntimeError as error:
            raise EngineRefusal(f"openvino: {model.name}: {_first_line(error)}") from error
        self.request, self.outputs = compiled.create_infer_request(), compiled.outputs

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        results = self.request.infer(feeds, share_inputs=True, share_outputs=False)
        return [results[output] for output in self.outputs]


ENGINES: Mapping[str, EngineKind] = {
    "prunus": EngineKind((), Prunus),
    "onnxruntime": EngineKind(("onnxruntime",), OnnxRuntime),
    "openvino": EngineKind(("openvino",), OpenVino),
}


def missing(engine: str) -> NotInstalled | None:
    """Why an engine of ENGINES can't be opened here; None when it can."""
    for package in ENGINES[engine].packages:
        if importlib.util.find_spec(package) is None:
            return NotInstalled(f"{engine}: not installed ({install_command(extra_of(package) or 'bench')})")
    return None


def open_engine(engine: str, model: Path, setting: Setting) -> Engine:
    """A model opened in an engine of ENGINES.

    Raises NotInstalled: its package is missing. EngineRefusal: it doesn't take the model.
    PrunusError: as `prunus.compile` and `prunus.load` do.
    """
    if absent := missing(engine):
        raise absent
    if engine != "prunus" and is_artefact(model):
        raise UnsupportedError(f"{model}: an artefact runs in prunus only, not in {engine}")
    return ENGINES[engine].open(model, setting)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "refused")
