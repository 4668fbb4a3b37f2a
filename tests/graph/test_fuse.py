"""Every pass computes the same, does so once, and fires where it should and only there."""

from collections.abc import Callable
from itertools import takewhile

import numpy as np
import onnx
import pytest

from prunus.compiler.compile import compile
from prunus.graph import read as reading
from prunus.graph.evaluate import evaluate
from prunus.graph.fuse import PASSES, fuse
from prunus.graph.ir import Graph, Node, verify
from prunus.graph.tidy import tidy
from tests.graph.fusions import CASES
from tests.runtime.networks import NETWORKS, assert_agrees, feeds_for, onnxruntime_run

Step = Callable[[Graph], Graph]
BOUND = 1e-5  # of the largest output: weights are scaled in another order
EVERYTHING = {name: case.model for name, case in CASES.items()} | NETWORKS


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[[onnx.ModelProto], Graph]:
    """Read without any pass."""
    monkeypatch.setattr(reading, "fuse", lambda graph: graph)
    return reading.read


def assert_same(before: Graph, after: Graph, model: onnx.ModelProto) -> None:
    """The graphs compute the same outputs, which keep their order."""
    feeds = feeds_for(model, seed=11)
    a, b = evaluate(before, feeds), evaluate(after, feeds)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    for name in before.outputs:
        assert a[name].shape == b[name].shape
        assert np.abs(a[name] - b[name]).max() <= BOUND * np.abs(a[name]).max()


def assert_equal(a: Graph, b: Graph) -> None:
    assert (a.nodes, a.values, a.outputs) == (b.nodes, b.values, b.outputs)
    assert set(a.constants) == set(b.constants)
    for name in a.constants:
        np.testing.assert_array_equal(a.constants[name], b.constants[name])


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_pass_keeps_the_meaning(name: str, plain: Callable[[onnx.ModelProto], Graph]) -> None:
    model = EVERYTHING[name]()
    graph = plain(model)
    for step in PASSES:
        after = step(graph)
        verify(after)
        assert_same(graph, after, model)
        assert_equal(step(after), after)
        assert_equal(tidy(after), after)
        graph = after
    assert_equal(graph, fuse(plain(model)))


@pytest.mark.parametrize("name", CASES)
def test_fires_where_it_should(name: str, plain: Callable[[onnx.ModelProto], Graph]) -> None:
    case = CASES[name]
    graph = plain(case.model())
    for step in takewhile(lambda step: step.__name__ != case.step, PASSES):
        graph = step(graph)
    after = next(step for step in PASSES if step.__name__ == case.step)(graph)
    assert len(graph.nodes) - len(after.nodes) == case.fewer, [node.op for node in after.nodes]


@pytest.mark.parametrize("name", CASES)
def test_fused_networks_run(name: str) -> None:
    model = CASES[name].model()
    feeds = feeds_for(model, seed=12)
    assert_agrees(compile(model, tune="off", threads=1).run(None, feeds), onnxruntime_run(model, feeds))


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.__name__)
def test_every_pass_has_cases(step: Step) -> None:
    mine = [case.fewer for case in CASES.values() if case.step == step.__name__]
    assert any(mine) and not all(mine)


def test_tidy_takes_away_what_nothing_reads(plain: Callable[[onnx.ModelProto], Graph]) -> None:
    graph = plain(CASES["bias"].model())
    spare = Node("identity", "spare", graph.inputs, ("spare",), {})
    wider = Graph(
        **{
            **graph.__dict__,
            "nodes": (spare, *graph.nodes),
            "constants": {**graph.constants, "spare": np.ones(1, np.float32)},
            "values": {**graph.values, "spare": graph.values[graph.inputs[0]]},
        }
    )
    verify(wider)
    assert_equal(tidy(wider), graph)
