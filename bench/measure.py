"""How each kind of row is measured. Every function takes a Case and returns plain data for a JSON line."""

import os
import resource
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import prunus
from bench import barrier, csr, networks
from prunus.benchmark.agreement import difference
from prunus.benchmark.engines import OnnxRuntime, missing, open_engine
from prunus.benchmark.footprint import measure_footprint
from prunus.benchmark.refusals import EngineRefusal
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import LEAST_ROUNDS, ratio_of_rounds, time_interleaved
from prunus.errors import PrunusWarning, UnsupportedError
from prunus.runtime.cpu import describe

ERROR = 1e-4  # in fp32: largest difference over largest output, against onnxruntime
INT8_PEERS = ("onnxruntime", "openvino")
Row = dict[str, Any]


class NotSupported(Exception):
    """This machine can't do what the row is about; the text says why."""


@dataclass(frozen=True)
class Case:
    """One network (or none) with its zeros, precision and threads. sparsity: None where the scheme says it, as of n:m.
    options: of the zoo's builder, as pairs.
    """

    network: str | None
    scheme: str | None
    sparsity: float | None
    threads: int
    precision: str = "fp32"
    peers: tuple[str, ...] = ()
    options: tuple[tuple[str, int], ...] = ()

    def model(self) -> onnx.ModelProto:
        assert self.network is not None, "this kind of row runs no network"
        return networks.sparse(self.network, self.scheme, self.sparsity, **dict(self.options))


def compile_case(case: Case, model: onnx.ModelProto) -> tuple[Any, float]:
    """A session in the case's precision, and the seconds that took.

    Raises NotSupported: layers fall back to fp32, or the precision is refused.
    """
    batches = networks.calibration(model) if case.precision == "int8" else None
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            session = prunus.compile(model, precision=case.precision, calibration=batches, threads=case.threads)
    except UnsupportedError as error:
        raise NotSupported(f"prunus {case.precision}: {error}") from error
    for warning in said:
        if case.precision == "bf16" and issubclass(warning.category, PrunusWarning):
            raise NotSupported(f"prunus bf16: {warning.message}")
    return session, time.perf_counter() - start


def race(case: Case, time_s: float) -> Row:
    """Prunus and the peers in turns: medians, errors and paired ratios. An fp32 peer that is wrong isn't timed."""
    model, errors, left_out = case.model(), {}, {}
    x = networks.feeds(model, 0)
    session, compile_s = compile_case(case, model)
    with tempfile.TemporaryDirectory() as folder:
        source, quantised = Path(folder) / "net.onnx", Path(folder) / "net-qdq.onnx"
        onnx.save(model, source)
        expected = OnnxRuntime(source, Setting(case.threads)).run(x)
        if case.precision == "int8":
            networks.quantise(source, quantised)
        opened = {"prunus": session.run(None, x)}
        calls: dict[str, Any] = {"prunus": lambda: session.run(None, x)}
        for peer in case.peers:
            if absent := missing(peer):
                left_out[peer] = str(absent)
                continue
            try:
                engine = open_engine(peer, quantised if case.precision == "int8" else source, Setting(case.threads))
            except EngineRefusal as refusal:
                left_out[peer] = str(refusal)
                continue
            opened[peer] = engine.run(x)
            calls[peer] = lambda engine=engine: engine.run(x)
        for name, outputs in opened.items():
            errors[name] = difference(outputs, expected)
            if case.precision == "fp32" and not errors[name] <= ERROR:
                if name == "prunus":
                    raise AssertionError(f"prunus differs from onnxruntime by {errors[name]:.1e}")
                left_out[name] = f"{name}: differs from onnxruntime by {errors[name]:.1e}"
                del calls[name]
        times = time_interleaved(calls, time_s, min(1.0, time_s))
    ratios = {name: ratio_of_rounds(times["prunus"].rounds, t.rounds) for name, t in times.items() if name != "prunus"}
    return {
        "ms": {name: round(t.median_s * 1e3, 4) for name, t in times.items()},
        "ratios": {n: [round(v, 3) for v in (r.lower, r.median, r.upper)] for n, r in ratios.items()},
        "errors": errors, "left_out": left_out, "compile_s": round(compile_s, 2), "zeros": round(_zeros(model), 4),
    }  # fmt: skip


def peak(case: Case, time_s: float) -> Row:
    """Of the sparse layers: the median share of the measured peak that their multiply-adds with kept weights reach."""
    model = case.model()
    session, _ = compile_case(case, model)
    rows = [
        row
        for row in session.profile(networks.feeds(model, 0), rounds=max(5, round(time_s * 20)))
        if row.sparsity is not None and row.sparsity > csr.LEAST_SPARSITY and row.of_peak is not None
    ]
    shares = [row.of_peak for row in rows]
    lower, median, upper = np.percentile(shares, [25, 50, 75]).tolist()
    return {"layers": len(rows), "value": round(median, 4), "quartiles": [round(lower, 4), round(upper, 4)]}


def against_csr(case: Case, time_s: float) -> Row:
    """Sum of the pruned layers in Prunus, by its profile, against CSR products of the same zeros, in turns."""
    model = case.model()
    session, _ = compile_case(case, model)
    x, layers = networks.feeds(model, 0), csr.pruned_layers(model)
    names = {layer.name for layer in layers}
    others = csr.timers(layers, case.threads)

    def own() -> float:
        rows = session.profile(x, rounds=1)
        matched = [row.ms for row in rows if row.node in names]
        assert len(matched) == len(names), f"{len(matched)} of {len(names)} pruned layers in the profile"
        return sum(matched) * 1e-3

    contestants = {"prunus": own, **others}
    for call in contestants.values():
        call()
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    start = time.perf_counter()
    while len(rounds["prunus"]) < LEAST_ROUNDS or time.perf_counter() - start < time_s * len(contestants):
        for name, call in contestants.items():
            rounds[name].append(call())
    mine = np.array(rounds["prunus"])
    ratios = {name: ratio_of_rounds(mine, np.array(t)) for name, t in rounds.items() if name != "prunus"}
    return {
        "ms": {name: round(float(np.median(t)) * 1e3, 4) for name, t in rounds.items()},
        "ratios": {n: [round(v, 3) for v in (r.lower, r.median, r.upper)] for n, r in ratios.items()},
        "layers": len(layers),
    }  # fmt: skip


def compile_time(case: Case, time_s: float) -> Row:
    """Seconds of one compilation with tuning, the kernel library cached, no layer times kept from before."""
    model = case.model()
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            prunus.compile(networks.sparse("vgg16-32", None, 0.0), threads=case.threads, tune="off")
            _, seconds = compile_case(case, model)
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
    return {"value": round(seconds, 2), "user_s": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1)}


def memory(case: Case, time_s: float) -> Row:
    """Peak memory of a process that loads the artefact and runs it once, beyond Python's own, over artefact + arena."""
    model = case.model()
    session, _ = compile_case(case, model)
    x = networks.feeds(model, 0)
    session.run(None, x)
    with tempfile.TemporaryDirectory() as folder:
        artefact, arrays = Path(folder) / "net.prunus", Path(folder) / "feeds.npz"
        session.save(artefact)
        np.savez(arrays, **x)
        found = measure_footprint("prunus", artefact, Setting(case.threads), arrays)
        size = artefact.stat().st_size
    assert found is not None, "the process that loads the artefact failed"
    used, arena = found.peak_bytes - found.base_bytes, session.memory()["arena"]
    return {"value": round(used / (size + arena), 4), "used": used, "artefact": size, "arena": arena}


def scaling(case: Case, time_s: float) -> Row:
    """How many times as fast a session is on the case's threads as one on a single thread, in turns."""
    model = case.model()
    x = networks.feeds(model, 0)
    alone, _ = compile_case(replace(case, threads=1), model)
    together, _ = compile_case(case, model)
    calls = {"1 thread": lambda: alone.run(None, x), "prunus": lambda: together.run(None, x)}
    times = time_interleaved(calls, time_s, min(1.0, time_s))
    ratio = ratio_of_rounds(times["prunus"].rounds, times["1 thread"].rounds)
    return {
        "ms": {name: round(t.median_s * 1e3, 4) for name, t in times.items()},
        "value": round(ratio.median, 3), "quartiles": [round(ratio.lower, 3), round(ratio.upper, 3)],
    }  # fmt: skip


def barrier_cost(case: Case, time_s: float) -> Row:
    """What a job costs beyond its tasks on two spinning threads, in microseconds."""
    if describe().physical_cores < 2:
        raise NotSupported("one core: two threads can't spin")
    return barrier.measure(time_s)


def _zeros(model: onnx.ModelProto) -> float:
    """Fraction of zeros over all weights of layers."""
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    return 1 - sum(int(np.count_nonzero(w)) for w in weights) / sum(w.size for w in weights)


KINDS = {
    "race": race, "peak": peak, "csr": against_csr, "compile": compile_time, "memory": memory, "scaling": scaling,
    "barrier": barrier_cost,
}  # fmt: skip
