"""GRU, LSTM and RNN: read and evaluated they give what onnxruntime and ONNX's own tests give."""

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus.errors import UnsupportedError
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import Graph
from prunus.graph.read import read
from tests.graph.recurrent import DIRECTIONS, Case
from tests.runtime.networks import onnxruntime_run

TAKES = {  # by onnxruntime, and how many alphas and betas
    "Relu": (0, 0), "Tanh": (0, 0), "Sigmoid": (0, 0), "Affine": (1, 1), "LeakyRelu": (1, 0), "ThresholdedRelu": (1, 0),
    "ScaledTanh": (1, 1), "HardSigmoid": (1, 1), "Elu": (1, 0), "Softsign": (0, 0), "Softplus": (0, 0),
}  # fmt: skip


def values_of(model: onnx.ModelProto, feeds: dict[str, Any]) -> tuple[Graph, list[Any]]:
    graph = read(model, {k: np.shape(a) for k, a in feeds.items()}, fallback=False)
    values = evaluate(graph, feeds)
    for node in graph.nodes:
        for name in node.outputs:
            assert values[name].shape == graph.values[name].shape, name
    return graph, [values[name] for name in graph.outputs]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    op = draw(st.sampled_from(["GRU", "LSTM", "RNN"]))
    direction = draw(st.sampled_from(sorted(DIRECTIONS)))
    t, n, i, h = (draw(st.integers(1, top)) for top in (6, 3, 4, 7))
    attrs: dict[str, Any] = {}
    gated = {"GRU": 2, "LSTM": 3, "RNN": 1}[op]
    if draw(st.booleans()):
        # onnxruntime's RNN knows but three, and its Affine and ThresholdedRelu have other defaults than ONNX's
        known = ["Relu", "Tanh", "Sigmoid"] if op == "RNN" else sorted(TAKES)
        names = [draw(st.sampled_from(known)) for _ in range(gated * DIRECTIONS[direction])]
        attrs["activations"] = names
        number = st.sampled_from([0.25, 0.5, 1.0, 1.5])
        if draw(st.booleans()) or {"ScaledTanh", "Affine", "ThresholdedRelu"} & set(names):
            for key, column in (("activation_alpha", 0), ("activation_beta", 1)):
                if any(TAKES[name][column] for name in names):
                    attrs[key] = [draw(number) for name in names if TAKES[name][column]]
    if draw(st.booleans()):
        attrs["clip"] = draw(st.sampled_from([0.25, 0.5, 2.0]))
    if op == "GRU":
        attrs["linear_before_reset"] = draw(st.integers(0, 1))
    if op == "LSTM":
        attrs["input_forget"] = draw(st.integers(0, 1))
    lengths = draw(st.none() | st.tuples(*[st.integers(0, t)] * n))
    outputs = draw(st.sampled_from([(), (0,), (1,), (0, 1)]))
    return Case(
        op, t, n, i, h, direction, draw(st.booleans()), draw(st.sampled_from([None, "given", "constant"])), lengths,
        lengths is not None and draw(st.booleans()), outputs=outputs, attrs=attrs, seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_as_onnxruntime(case: Case) -> None:
    model, feeds = case.build()
    _, found = values_of(model, feeds)
    expected = onnxruntime_run(model, feeds)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * max(1, np.abs(wanted).max()))


@functools.cache
def node_tests() -> dict[str, Any]:
    """ONNX's own, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnx.backend.test.case.node as tests

        found = tests.collect_testcases(None)
    return {c.name: c for c in found if c.name.startswith(("test_gru", "test_lstm", "test_rnn", "test_simple_rnn"))}


def test_node_tests_are_found() -> None:
    assert len(node_tests()) >= 12


@pytest.mark.parametrize("name", sorted(node_tests()))
def test_node(name: str) -> None:
    case = node_tests()[name]
    inputs, expected = case.data_sets[0]
    ports = dict(zip((value.name for value in case.model.graph.input), inputs, strict=True))
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    slots = list(model.graph.node[0].input)
    flowing = {slot for index, slot in enumerate(slots) if index in (0, 4, 5, 6)}
    for key, array in ports.items():
        if key not in flowing:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    if "peephole" in name:
        with pytest.raises(UnsupportedError, match=r"operator LSTM isn't compiled: peepholes"):
            read(model, fallback=False)
        return
    graph, found = values_of(model, {key: a for key, a in ports.items() if key in flowing})
    assert any(node.op == "recurrent" for node in graph.nodes)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)
