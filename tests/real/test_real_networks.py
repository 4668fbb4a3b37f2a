"""Real networks give the answers that onnxruntime gives, dense and pruned."""

import numpy as np
import onnxruntime
import pytest

import prunus
from prunus.compiler.compile import read_at_batch_1
from prunus.compiler.precision import lower
from prunus.compiler.translate import spell_out, translate
from prunus.compiler.tune import Tuner
from prunus.graph.load import load_model
from prunus.kernels.isa import isa_of
from prunus.kernels.library import kernel_library
from prunus.runtime.artefact import pack
from prunus.runtime.cpu import describe
from prunus.runtime.session import Session
from tests.real import networks

BOUND = 1e-4  # of the largest output


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def both(model: bytes, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    session = prunus.compile(model, tune="off")
    assert not [op.name for op in session.program.ops if op.kind == "onnxruntime"], "all of it is compiled"
    engine = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0], engine.run(None, feeds)[0]


def inputs(name: str) -> tuple[bytes, np.ndarray]:
    if name == "efficientnet_lite0":
        return networks.efficientnet_lite0(), ((networks.photos(224) - 127) / 128).transpose(0, 3, 1, 2)
    model = networks.squeezenet()
    return model, (networks.photos(227)[..., ::-1] - np.float32([103.939, 116.779, 123.68])).transpose(0, 3, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_same_answers_dense(name: str) -> None:
    model, x = inputs(name)
    got, wanted = both(model, {"x": np.ascontiguousarray(x, np.float32)})
    assert difference(got, wanted) <= BOUND
    assert (got.argmax(1) == wanted.argmax(1)).all()
    assert len(set(wanted.argmax(1))) > len(wanted) / 3, "the images are told apart"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["unstructured", "bcr:8x64"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_same_answers_pruned(name: str, scheme: str) -> None:
    """After one-shot pruning to 30 % the same answers as onnxruntime on the same file."""
    model, x = inputs(name)
    pruned = prunus.prune_onnx(model, scheme=scheme, sparsity=0.3).SerializeToString()
    got, wanted = both(pruned, {"x": np.ascontiguousarray(x[:8], np.float32)})
    assert difference(got, wanted) <= BOUND
    assert (got.argmax(1) == wanted.argmax(1)).all()


def in_precision(model: bytes, precision: str, calibration: list[dict[str, np.ndarray]]) -> Session:
    """bf16 by whichever kernels run here, in the rounding of bfloat16."""
    if precision == "int8":
        return prunus.compile(model, precision="int8", calibration=calibration, tune="off")
    isa = isa_of(describe().best_target or "x86-64")
    graph = spell_out(read_at_batch_1(load_model(model), None, False))
    program, constants = pack(translate(lower(graph, "bf16", {}).graph, isa, Tuner(isa, 1, "off", None, str).decide))
    return Session(program, kernel_library(isa), constants)


@pytest.mark.slow
@pytest.mark.parametrize("precision, alike", [("bf16", 0.998), ("int8", 0.98)])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_low_precision_keeps_answers(name: str, precision: str, alike: float) -> None:
    """The same top-1 wherever fp32 is sure, and outputs that go together; bench/accuracy.py counts on many images."""
    model, x = inputs(name)
    x = np.ascontiguousarray(x[:64], np.float32)
    low = in_precision(model, precision, [{"x": x[i : i + 1]} for i in range(0, len(x), 2)])
    found, exact = (
        s.run(None, {"x": x})[0].reshape(len(x), -1).astype(np.float64)
        for s in (low, prunus.compile(model, tune="off"))
    )
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > alike
    odds = np.exp(exact - exact.max(1, keepdims=True))
    sure = odds.max(1) / odds.sum(1) > 0.5
    assert sure.sum() >= 3
    assert (found.argmax(1) == exact.argmax(1))[sure].all()


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.LIGHT)
def test_light_graphs(name: str) -> None:
    model = networks.light(name)
    entry = model.graph.input[0]
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    session = prunus.compile(model, tune="off")
    engine = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = []
    for seed in (0, 1):
        feeds = {entry.name: np.random.default_rng(seed).standard_normal(shape, np.float32)}
        got, wanted = session.run(None, feeds)[0], engine.run(None, feeds)[0]
        assert difference(got, wanted) <= BOUND
        results.append(wanted)
    assert difference(results[0], results[1]) > 2 * BOUND, "the input matters more than the bound"
