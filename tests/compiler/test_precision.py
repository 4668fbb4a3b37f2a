"""int8 and bf16 from a user's side: calibration, QDQ files, layers that stay float32, budgets, artefacts."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import prunus
from prunus.compiler.calibrate import METHODS, form_of, range_of
from prunus.compiler.compile import read_at_batch_1
from prunus.compiler.precision import lower
from prunus.compiler.translate import spell_out, translate
from prunus.compiler.tune import Tuner
from prunus.errors import PrunusWarning, UnsupportedError
from prunus.kernels.isa import isa_of
from prunus.kernels.library import kernel_library
from prunus.runtime.artefact import pack
from prunus.runtime.cpu import describe
from prunus.runtime.session import Session
from tests.runtime.networks import Net

Feeds = dict[str, np.ndarray]
SHAPE = (3, 20, 18)


def network(batch: int | str = "N") -> onnx.ModelProto:
    """Every kind of layer that is packed, and some that aren't."""
    net = Net({"x": (batch, *SHAPE)})
    stem = net.add("Relu", net.conv("x", 16, 3, strides=[2, 2]))
    lone = net.add("HardSwish", net.conv(stem, 16, 16, group=16))
    inner = net.conv(lone, 16, 16, 1)
    both = net.add("Relu", net.add("Add", inner, stem))
    pooled = net.add("MaxPool", both, kernel_shape=[2, 2], strides=[2, 2])
    side = net.add("Concat", net.add("Relu", net.conv(pooled, 8, 16)), net.conv(pooled, 12, 16, 1), axis=1)
    odd = net.add("Sigmoid", net.conv(side, 10, 20))
    flat = net.add("Flatten", net.add("GlobalAveragePool", odd))
    return net.model(net.add("Gemm", flat, net.weight(7, 10, zeros=0), net.weight(7), transB=1))


def batches(n: int = 4, seed: int = 0) -> list[Feeds]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((2, *SHAPE), np.float32)} for _ in range(n)]


def error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(((found - exact) ** 2).sum() / (exact**2).sum()))


def exact(model: onnx.ModelProto, feeds: Feeds) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


@pytest.mark.parametrize("method", METHODS)
def test_int8_is_near(method: str) -> None:
    model = network()
    session = prunus.compile(model, precision="int8", calibration=batches(), calibration_method=method, tune="off")
    feeds = batches(1, seed=9)[0]
    assert error(session.run(None, feeds)[0], exact(model, feeds)) < 0.03
    assert all("int8" in row.kernel for row in session.explain() if row.op in ("conv", "gemm"))
    three = {"x": np.concatenate([feeds["x"], feeds["x"][:1]])}
    np.testing.assert_allclose(session.run(None, three)[0][:2], session.run(None, feeds)[0], rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_in_turn(tmp_path: Path, precision: str, threads: int) -> None:
    """Each batch size is planned anew, with or without the model, and an image's output doesn't depend on others."""
    calibration = batches() if precision == "int8" else None
    made = prunus.compile(network(), precision=precision, calibration=calibration, tune="off", threads=threads)
    made.save(tmp_path / "net.prunus")
    x = np.concatenate([feeds["x"] for feeds in batches(4, seed=9)])
    alone = np.concatenate([made.run(None, {"x": image[None]})[0] for image in x])
    assert error(alone, exact(network(), {"x": x})) < 0.03
    single = made.memory()["arena"]
    for session in (made, prunus.load(tmp_path / "net.prunus", threads=threads)):
        for batch in (1, 8, 1, 3):
            np.testing.assert_array_equal(session.run(None, {"x": x[:batch]})[0], alone[:batch])
            assert session.memory()["arena"] <= batch * single


def test_fixed_batch_takes_larger_calibration_batches() -> None:
    session = prunus.compile(network(1), precision="int8", calibration=batches(), tune="off")
    assert session.get_inputs()[0].shape[0] == 1


def test_artefact(tmp_path: Path) -> None:
    session = prunus.compile(network(), precision="int8", calibration=batches(), tune="off")
    session.save(tmp_path / "net.prunus")
    feeds = batches(1)[0]
    loaded = prunus.load(tmp_path / "net.prunus")
    np.testing.assert_array_equal(loaded.run(None, feeds)[0], session.run(None, feeds)[0])
    sizes = [
        sum(array.nbytes for name, array in program.constants.items() if name.endswith(".values"))
        for program in (session.program, prunus.compile(network(), tune="off").program)
    ]
    assert sizes[0] < 0.75 * sizes[1], "half the weights are zero, and quads hold some of them"


def test_tuned_and_scheduled(tmp_path: Path) -> None:
    """What the tuner chose can be written, read back and pinned."""
    from prunus.compiler.schedule import schedule_text

    given: dict[str, Any] = {"precision": "int8", "calibration": batches(), "threads": 1}
    session = prunus.compile(network(), tune="fast", **given)
    path = tmp_path / "schedule.yaml"
    path.write_text(schedule_text(session.program, 1))
    again = prunus.compile(network(), tune="off", schedule=path, **given)
    assert [r.kernel for r in again.explain()] == [r.kernel for r in session.explain()]
    assert all(r.reason == "pinned by the schedule" for r in again.explain() if r.op in ("conv", "gemm"))


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rest = iter(batches())

    def get_next(self) -> Feeds | None:
        return next(self.rest, None)


@pytest.mark.parametrize("activation", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_qdq_files(tmp_path: Path, activation: QuantType, per_channel: bool) -> None:
    """Read as they are: in fp32 they round as onnxruntime does, in int8 without calibration data."""
    onnx.save(network(), tmp_path / "net.onnx")
    options = {"quant_format": QuantFormat.QDQ, "per_channel": per_channel, "activation_type": activation}
    quantize_static(tmp_path / "net.onnx", tmp_path / "qdq.onnx", Reader(), weight_type=QuantType.QInt8, **options)
    feeds = batches(1, seed=3)[0]
    wanted = exact(onnx.load(tmp_path / "qdq.onnx"), feeds)
    plain = prunus.compile(tmp_path / "qdq.onnx", tune="off", fallback=None)
    assert error(plain.run(None, feeds)[0], wanted) < 0.02
    session = prunus.compile(tmp_path / "qdq.onnx", precision="int8", tune="off")
    assert sum("int8" in row.kernel for row in session.explain()) >= 6
    truth = exact(network(), feeds)
    assert error(session.run(None, feeds)[0], truth) < 1.2 * error(wanted, truth) + 0.005


def test_weights_of_qdq_files_keep_their_steps(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")
    quantize_static(tmp_path / "net.onnx", tmp_path / "qdq.onnx", Reader(), per_channel=True)
    graph = read_at_batch_1(onnx.load(tmp_path / "qdq.onnx"), None, True, keep_steps=False)
    lowered = lower(spell_out(graph), "int8", graph.formats).graph
    before = {n.name: graph.constants[n.attrs["weight"]] for n in graph.nodes if n.op == "conv"}
    for node in lowered.nodes:
        if node.op == "conv" and node.attrs["weight"].endswith(".rounded"):
            np.testing.assert_allclose(lowered.constants[node.attrs["weight"]], before[node.name], rtol=2e-6)


def test_mixed_precision_meets_its_budget() -> None:
    model, calibration = network(), batches()
    plain = prunus.compile(model, tune="off")

    def compiled(budget: float | None) -> tuple[float, int]:
        session = prunus.compile(
            model, precision="int8", calibration=calibration, error_budget=budget, tune="off", threads=1
        )
        errors = [error(session.run(None, b)[0], plain.run(None, b)[0]) for b in calibration]
        return max(errors), sum("error budget" in row.reason for row in session.explain())

    whole, none = compiled(None)
    tight, some = compiled(whole / 3)
    assert none == 0 < some and tight < whole / 2
    assert compiled(10.0)[1] == 0


def test_unsupported_precision_is_said() -> None:
    target = next(t for t in describe().targets if not isa_of(t).bf16)
    with pytest.warns(PrunusWarning, match=r"bf16.*'conv0' \(and 6 more layers\).*no instructions"):
        session = prunus.compile(network(), precision="bf16", target=target, tune="off")
    assert all("bf16" in row.reason or "no instructions" in row.reason for row in session.explain() if row.op == "conv")
    feeds = batches(1)[0]
    np.testing.assert_allclose(session.run(None, feeds)[0], exact(network(), feeds), rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"bf16.*conv0"):
        prunus.compile(network(), precision="bf16", target=target, tune="off", fallback=None)


def test_a_layer_that_cannot_be_packed_is_named() -> None:
    net = Net({"x": (1, 6, 8, 8)})
    model = net.model(net.conv(net.conv("x", 9, 6, group=3), 8, 9))
    given: dict[str, Any] = {"calibration": [{"x": np.ones((1, 6, 8, 8), np.float32)}], "tune": "off"}
    with pytest.warns(PrunusWarning, match=r"'conv0': groups of 2 channels and 3 filters, expected multiples of 4"):
        session = prunus.compile(model, precision="int8", **given)
    kernels = {row.node: row.kernel for row in session.explain()}
    assert "int8" not in kernels["conv0"] and "int8" in kernels["conv1"]


def test_bf16_is_near() -> None:
    """By whichever kernels run here, in the rounding of bfloat16."""
    model, isa = network(), isa_of(describe().best_target or "x86-64")
    graph = spell_out(read_at_batch_1(model, None, True))
    program, constants = pack(translate(lower(graph, "bf16", {}).graph, isa, Tuner(isa, 1, "off", None, str).decide))
    session = Session(program, kernel_library(isa), constants, 1)
    feeds = batches(1, seed=5)[0]
    assert 1e-5 < error(session.run(None, feeds)[0], exact(model, feeds)) < 0.01


def test_no_warning_where_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prunus.compile(network(), precision="int8", calibration=batches(), tune="off", fallback=None)


@pytest.mark.parametrize("low, high", [(-1.0, 3.0), (0.0, 6.0), (-2.5, 0.0), (-1e-9, 7.0), (0.3, 5.0), (-1e20, 1e20)])
def test_formats_reach_both_ends_and_zero(low: float, high: float) -> None:
    form = form_of(low, high)
    least, most = range_of(form)
    assert least <= min(low, 0) * (1 - 1e-6) and most >= high * (1 - 1e-6)
    assert 0 <= form.zero <= 255 and (most - least) <= 1.02 * (max(high, 0) - min(low, 0)) + 1e-6


def test_output_does_not_depend_on_threads_or_time() -> None:
    def program(threads: int) -> dict[str, bytes]:
        session = prunus.compile(network(), precision="int8", calibration=batches(), tune="off", threads=threads)
        return {name: array.tobytes() for name, array in session.program.constants.items() if "scale" in name}

    assert program(1) == program(1)
