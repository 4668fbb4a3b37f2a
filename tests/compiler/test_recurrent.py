"""Recurrent layers through the compiler: their zeros are used, schedules name them, other precisions fall back."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

import prunus
from prunus.compiler.compile import compile
from prunus.compiler.held import HELD, hold
from prunus.compiler.recurrent import MANY_STEPS, stacked
from prunus.compiler.schedule import schedule_text
from prunus.errors import FeedError, ScheduleError
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import Graph
from prunus.graph.read import read
from prunus.kernels.isa import ISAS
from prunus.runtime.cpu import describe
from prunus.runtime.roofline import weight_bytes
from prunus.runtime.session import load
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
        assert weight_bytes(session.program, layer) < 2.1 * kept, "zeros are left out"


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


def with_rounded_weights(graph: Graph, form: str) -> Graph:
    """The graph with the weights that its recurrent layers are to compute with."""
    constants = dict(graph.constants)
    for node in graph.nodes:
        if node.op == "recurrent":
            names = [node.attrs[key] for key in ("weight", "recurrence")]
            weight, recurrence = (constants[name].copy() for name in names)
            made, (rows, h) = stacked(node, graph), recurrence.shape
            held = hold(form, made.matrix)
            assert held is not None
            rounded = held.rounded(made.matrix)
            weight, shared = rounded[:rows, made.input_start :], 2 * h if node.attrs["kind"] == "gru" else rows
            recurrence[:shared] = rounded[:shared, :h]
            if len(rounded) > rows:
                recurrence[shared:] = rounded[rows:, :h]
            if made.second is not None:
                recurrence[shared:] = hold(form, made.second).rounded(made.second)
            constants |= dict(zip(names, (weight, recurrence), strict=True))
    return replace(graph, constants=constants)


@pytest.mark.parametrize("form", HELD)
@pytest.mark.parametrize("scheme", [None, "bcr:16x128", "block-column:16x128"])
@pytest.mark.parametrize(
    "op, attrs", [("GRU", {"linear_before_reset": 1}), ("GRU", {"linear_before_reset": 0}), ("LSTM", {}), ("RNN", {})]
)
@pytest.mark.parametrize("t", [3, 2 * MANY_STEPS])
def test_other_precisions(
    form: str, scheme: str | None, op: str, attrs: dict[str, int], t: int, tmp_path: Path
) -> None:
    """The weights are rounded; the rest is float32, whatever the number of steps, without calibration or a warning."""
    model, feeds = Case(op, t=t, n=2, i=20, h=144, direction="bidirectional", states="given", attrs=attrs).build()
    if scheme and op != "RNN":
        model = prunus.prune_onnx(model, scheme=scheme, sparsity=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = compile(model, tune="off", threads=1, precision=form, fallback=None)
    graph = with_rounded_weights(read(model, fallback=False), form)
    values, found = evaluate(graph, feeds), session.run(None, feeds)
    for name, got in zip(graph.outputs, found, strict=True):
        np.testing.assert_allclose(got, values[name], rtol=1e-4, atol=1e-4)
    (row, _) = [row for row in session.explain() if row.op == "recurrent"]
    assert row.kernel.startswith(f"{form} weights")
    ops = [op for op in session.program.ops if op.kind == "recurrent"]
    assert all(session.program.constants[f"{op.name}.values"].itemsize == HELD[form] for op in ops)
    session.save(tmp_path / "a.prunus")
    for a, b in zip(found, load(tmp_path / "a.prunus", 1).run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_budget_keeps_layers() -> None:
    model, feeds = Case("LSTM", h=24).build()
    session = compile(model, tune="off", threads=1, precision="int8", calibration=[feeds], error_budget=1e-9)
    (row,) = [row for row in session.explain() if row.op == "recurrent"]
    assert "fp32: the error budget asks for it" in row.reason and not row.kernel.startswith("int8")


@pytest.mark.parametrize("target", [isa.target for isa in ISAS if not isa.bf16 and isa.target in describe().targets])
def test_bf16_needs_no_instructions_for_it(target: str) -> None:
    model, feeds = Case("GRU", h=24).build()
    session = compile(model, target, tune="off", threads=1, precision="bf16", fallback=None)
    graph = with_rounded_weights(read(model, fallback=False), "bf16")
    np.testing.assert_allclose(session.run(None, feeds)[0], evaluate(graph, feeds)[graph.outputs[0]], atol=1e-5)


def test_schedule_of_long_sequences(tmp_path: Path) -> None:
    model, feeds = Case("GRU", t=MANY_STEPS, h=64).build()
    session = compile(model, tune="off", threads=1)
    path = tmp_path / "s.yaml"
    path.write_text(schedule_text(session.program, 1))
    assert "layer.input:" in path.read_text()
    again = compile(model, tune="fast", threads=1, schedule=path)
    for a, b in zip(session.run(None, feeds), again.run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
