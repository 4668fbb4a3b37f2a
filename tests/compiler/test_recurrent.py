"""Recurrent layers through the compiler: their zeros are used, schedules name them, other precisions fall back."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

import prunus
from prunus.compiler.compile import compile
from prunus.compiler.recurrent import stacked
from prunus.compiler.schedule import schedule_text
from prunus.errors import FeedError, PrunusWarning, ScheduleError
from prunus.graph.evaluate import evaluate
from prunus.graph.read import read
from prunus.runtime.roofline import weight_bytes
from tests.graph.recurrent import Case
from tests.runtime.networks import onnxruntime_run


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize(
    "scheme, sparsity", [("bcr:16x128", 0.9), ("block-column:16x128", 0.9), ("unstructured", 0.95)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_pruned(op: str, scheme: str, sparsity: float, threads: int) -> None:
    attrs = {"linear_before_reset": 1} if op == "GRU" else {}
    model, feeds = Case(op, t=3, n=2, i=39, h=144, states="given", attrs=attrs).build()
    if op != "RNN":
        model = prunus.prune_onnx(model, scheme=scheme, sparsity=sparsity)
    session = compile(model, tune="off", threads=threads, fallback=None)
    graph = read(model)
    values = evaluate(graph, feeds)
    for name, got in zip(graph.outputs, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(got, values[name], rtol=1e-5, atol=1e-5)
    (row,) = [row for row in session.explain() if row.op == "recurrent"]
    if op != "RNN":
        assert row.sparsity == pytest.approx(sparsity, abs=0.02)
        (layer,) = [op for op in session.program.ops if op.kind == "recurrent"]
        kept = 4 * layer.attrs["kept"]
        assert weight_bytes(session.program, layer) < 2 * kept, "zeros are left out"


@pytest.mark.parametrize("before", [0, 1])
def test_what_is_stacked(before: int) -> None:
    """The product with [h, x] is the sums of all gates."""
    model, _ = Case("GRU", i=3, h=20, attrs={"linear_before_reset": before}).build()
    graph = read(model)
    (node,) = [node for node in graph.nodes if node.op == "recurrent"]
    weight, recurrence = (graph.constants[node.attrs[key]] for key in ("weight", "recurrence"))
    made = stacked(node, graph)
    assert made.input_start >= 20 and made.input_start % 16 == 0
    h, x = np.arange(20, dtype=np.float32), np.array([1, -2, 3], np.float32)
    sums = made.matrix @ np.concatenate([h, np.zeros(made.input_start - 20, np.float32), x])
    both = weight @ x + recurrence @ h
    np.testing.assert_allclose(sums[:40], both[:40], rtol=1e-5)
    np.testing.assert_allclose(sums[40:60], (weight @ x)[40:], rtol=1e-5)
    if before:
        np.testing.assert_allclose(sums[60:], (recurrence @ h)[40:], rtol=1e-5)
        assert made.second is None
    else:
        assert made.second is not None
        np.testing.assert_array_equal(made.second, recurrence[40:])


def test_schedule(tmp_path: Path) -> None:
    model, feeds = Case("LSTM", h=64).build()
    model = prunus.prune_onnx(model, scheme="unstructured", sparsity=0.9)
    session = compile(model, tune="off", threads=1)
    text = schedule_text(session.program, 1)
    assert "encoding: spans" in text
    path = tmp_path / "s.yaml"
    path.write_text(text)
    again = compile(model, tune="fast", threads=1, schedule=path)
    for a, b in zip(session.run(None, feeds), again.run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
    path.write_text(text.replace("encoding: spans", "encoding: blocks"))
    with pytest.raises(ScheduleError, match="'layer'"):
        compile(model, tune="off", threads=1, schedule=path)


def test_unknown_lengths_of_time_plan_anew() -> None:
    """A sequence longer than planned; one of no steps is refused."""
    model, feeds = Case("GRU", t=2, n=1).build()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "time"
    session = compile(model, tune="off", threads=1)
    x = np.concatenate([feeds["x"]] * 3)
    (y, last), graph = session.run(None, {"x": x}), read(model, {"x": x.shape})
    values = evaluate(graph, {"x": x})
    np.testing.assert_allclose(y, values[graph.outputs[0]], atol=1e-5)
    np.testing.assert_allclose(last, values[graph.outputs[1]], atol=1e-5)
    with pytest.raises(FeedError, match=r"\[0, 1, 3\]"):
        session.run(None, {"x": x[:0]})


def test_computed_lengths_run_elsewhere() -> None:
    model, feeds = Case("GRU", t=3, n=2, lengths=(3, 1), lengths_given=True).build()
    twice = helper.make_node("Add", ["lengths", "none"], ["computed"])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int32), "none"))
    model.graph.node[0].input[4] = "computed"
    model.graph.node.insert(0, twice)
    session = compile(model, tune="off", threads=1)
    assert any("onnxruntime" in row.kernel for row in session.explain())
    for got, wanted in zip(session.run(None, feeds), onnxruntime_run(model, feeds), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_fall_back(precision: str) -> None:
    model, feeds = Case("GRU", h=24).build()
    with pytest.warns(PrunusWarning, match="layer 'layer'"):
        session = compile(model, tune="off", threads=1, precision=precision, calibration=[feeds])
    (row,) = [row for row in session.explain() if row.op == "recurrent"]
    assert "fp32:" in row.reason
