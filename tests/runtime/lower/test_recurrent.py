"""Recurrent layers compiled: as evaluated, on any threads, with zeros of any scheme; planning thousands of steps."""

import time
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from prunus.compiler.compile import compile
from prunus.compiler.recurrent import BLOCK_STEPS, MANY_STEPS
from prunus.graph.evaluate import evaluate
from prunus.graph.read import read
from prunus.runtime.plan import make_plan
from prunus.runtime.records import KINDS, RECORDS
from prunus.runtime.session import Session, load
from tests.graph.recurrent import Case
from tests.graph.test_recurrent import cases
from tests.runtime.networks import onnxruntime_run

NUDGE = 2e-7


def check(model: onnx.ModelProto, feeds: dict[str, Any], session: Session | None = None) -> list[Any]:
    session = session or compile(model, tune="off", threads=1, fallback=None)
    graph = read(model, fallback=False)
    values = evaluate(graph, feeds)
    found = session.run(None, feeds)
    for name, got in zip(graph.outputs, found, strict=True):
        np.testing.assert_allclose(got, values[name], rtol=1e-5, atol=1e-5 * max(1, np.abs(values[name]).max()))
    return found


def nudged(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The next values or so in float32; whole numbers as they are."""
    return a * np.float32(1 + NUDGE) if a.dtype == np.float32 else a


def away(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0)))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(2 * MANY_STEPS))
def test_as_evaluated(case: Case) -> None:
    model, feeds = case.build()
    graph = read(model, fallback=False)
    with np.errstate(all="ignore"):  # relu and the like may grow without end
        values, nearby = evaluate(graph, feeds), evaluate(graph, {n: nudged(a) for n, a in feeds.items()})
        assume(all((np.abs(values[name]) < 100).all() for name in graph.outputs))
        # gates like Affine may blow rounding up from step to step, until no float32 engine is within the bound
        assume(all(away(nearby[n], values[n]) < 5 * NUDGE for n in graph.outputs))
    check(model, feeds)


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize(
    "t, n", [(MANY_STEPS - 1, 1), (MANY_STEPS, 3), (BLOCK_STEPS + 1, 1), (2 * BLOCK_STEPS, 2), (70, 3)]
)
@pytest.mark.parametrize("before", [0, 1])
def test_long_sequences(op: str, t: int, n: int, before: int) -> None:
    """The input's part over time: blocks of steps and their ends, both directions, lengths, pruned or not, threads."""
    if op != "GRU" and before:
        pytest.skip("a GRU's")
    attrs = {"linear_before_reset": before} if op == "GRU" else {}
    lengths = (t, 0, t // 2)[:n] if n > 1 else None
    case = Case(op, t=t, n=n, i=21, h=36, direction="bidirectional", lengths=lengths, states="given", attrs=attrs)
    model, feeds = case.build()
    one = check(model, feeds)
    session = compile(model, tune="off", threads=2)
    (first, *_) = [op for op in session.program.ops if op.kind == "recurrent"]
    assert ("over_time" in first.attrs) == (t >= MANY_STEPS)
    for a, b in zip(one, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("h, i", [(16, 16), (130, 5), (257, 140), (300, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_and_threads(op: str, h: int, i: int, threads: int) -> None:
    model, feeds = Case(op, t=3, n=3, i=i, h=h, lengths=(3, 0, 2), states="given", direction="bidirectional").build()
    one = check(model, feeds)
    session = compile(model, tune="off", threads=threads)
    for a, b in zip(one, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_states_dont_leak_from_run_to_run() -> None:
    model, feeds = Case("LSTM", t=2, n=1, i=4, h=20).build()
    session = compile(model, tune="off", threads=1)
    nan = session.run(None, {"x": feeds["x"] * np.float32("nan")})
    assert all(np.isnan(array).all() for array in nan)
    check(model, feeds, session)


def test_many_steps_plan_fast() -> None:
    model, _ = Case("GRU", t=3000, n=1, i=4, h=8).build()
    program = compile(model, tune="off", threads=1).program
    start = time.perf_counter()
    plan = make_plan(program)
    assert time.perf_counter() - start < 5  # a second would be too much already, but machines may be busy
    assert plan.tables.nbytes < 1 << 16, "steps share tables"


def test_every_other_step_goes_backwards() -> None:
    model, _ = Case("GRU", t=10, n=1, h=64).build()
    records, at, found = make_plan(compile(model, tune="off", threads=1).program).records, 0, []
    while at < len(records):
        for kind in ("gemv", "spans"):
            if records[at] == KINDS[kind]:
                found.append(int(records[at + 2 + RECORDS[kind].index("backwards")]))
        at += records[at + 1]
    assert found[::2] == [0, 1] * 5 and not any(found[1::2]), "the candidate's product goes forwards"


def test_artefact(tmp_path: Any) -> None:
    model, feeds = Case("GRU", h=40, states="constant", attrs={"linear_before_reset": 1}).build()
    session = compile(model, tune="off", threads=1)
    session.save(tmp_path / "a.prunus")
    for a, b in zip(session.run(None, feeds), load(tmp_path / "a.prunus", 1).run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_of_explain_and_profile() -> None:
    model, feeds = Case("GRU", t=5, n=2, h=32, i=16).build()
    session = compile(model, tune="fast", threads=1)
    (row,) = [row for row in session.explain() if row.op == "recurrent"]
    assert row.sparsity == 0 and row.scheme == "dense" and row.node == "layer"
    (spent,) = [row for row in session.profile(feeds, 2) if row.op == "recurrent"]
    assert spent.gflops and spent.ms > 0
    onnxruntime_run(model, feeds)
