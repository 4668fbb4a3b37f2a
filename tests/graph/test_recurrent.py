"""GRU, LSTM and RNN: read and evaluated they give what onnxruntime and ONNX's own tests give."""

import functools
import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from prunus.errors import ModelError, UnsupportedError
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import Graph
from prunus.graph.read import read
from prunus.sparsity.refusal import Refusal
from tests.graph.recurrent import BATCH_FIRST, CASES, DIRECTIONS, Case
from tests.runtime.networks import Net, assert_agrees, onnxruntime_run

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
def cases(draw: st.DrawFn, steps: int = 6) -> Case:
    op = draw(st.sampled_from(["GRU", "LSTM", "RNN"]))
    direction = draw(st.sampled_from(sorted(DIRECTIONS)))
    t, n, i, h = (draw(st.integers(1, top)) for top in (steps, 3, 4, 7))
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
    expected = onnxruntime_run(model, feeds)
    with np.errstate(all="ignore"):  # relu and the like may grow without end
        assume(all((np.abs(a) < 100).all() for a in expected))
    _, found = values_of(model, feeds)
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


@pytest.mark.parametrize("name", BATCH_FIRST)
def test_batch_first(name: str) -> None:
    """Which onnxruntime refuses: the same with the batch second, turned."""
    case = BATCH_FIRST[name]
    model, feeds = case.build()
    _, found = values_of(model, feeds)
    twin, given = replace(case, attrs={}).build()
    for key, array in given.items():
        given[key] = feeds[key].swapaxes(0, 1)
        assert given[key].shape == array.shape
    for tensor, own in zip(twin.graph.initializer, model.graph.initializer, strict=True):
        tensor.CopyFrom(own)
    y, *states = onnxruntime_run(twin, given)
    for got, wanted in zip(found, [y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states)], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def changed(case: Case, slot: int | None = None, **attrs: Any) -> onnx.ModelProto:
    """The case's model with an input that flows instead of a constant, or other attributes."""
    model, _ = case.build()
    (node,) = model.graph.node
    if slot is not None:
        name = node.input[slot]
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        kind = TensorProto.INT32 if name == "lengths" else TensorProto.FLOAT
        model.graph.input.append(helper.make_tensor_value_info(name, kind, list(tensor.dims)))
        model.graph.initializer.remove(tensor)
    for key, value in attrs.items():
        for old in [a for a in node.attribute if a.name == key]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(key, value))
    return model


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "weights that flow": (changed(Case("GRU"), 1), "operator GRU isn't compiled: the weights aren't constant"),
    "recurrence that flows": (changed(Case("LSTM"), 2), "operator LSTM isn't compiled: the recurrent weights aren't"),
    "bias that flows": (changed(Case("RNN"), 3), "operator RNN isn't compiled: the bias isn't constant"),
    "direction": (changed(Case("RNN"), direction="sideways"), "operator RNN isn't compiled: y has no static shape"),
    "peepholes": (
        Case("LSTM", peepholes=np.ones((1, 15), np.float32)).build()[0],
        "operator LSTM isn't compiled: peepholes",
    ),
    "peepholes that flow": (
        changed(Case("LSTM", peepholes=np.ones((1, 15), np.float32)), 7),
        "operator LSTM isn't compiled: peepholes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_declined(name: str) -> None:
    model, said = REFUSED[name]
    with pytest.raises(UnsupportedError, match=re.escape(f"node 'layer': {said}")):
        read(model, fallback=False)
    assert [node.op for node in read(model).nodes] == ["onnxruntime"]


WRONG: dict[str, tuple[onnx.ModelProto, str]] = {
    "activation": (changed(Case("GRU"), activations=["Sigmoid", "Swish"]), r"GRU has activation 'Swish', expected one"),
    "too few activations": (changed(Case("LSTM"), activations=["Tanh"]), "LSTM has 1 activations, expected 3"),
    "no alpha": (changed(Case("RNN"), activations=["ScaledTanh"]), "ScaledTanh without activation_alpha"),
    "hidden size": (changed(Case("GRU"), hidden_size=4), r"\[4, 2, 3\].*\[1, 15, 3\].*hidden_size 4 contradict"),
    "two directions": (changed(Case("GRU"), direction="bidirectional"), "with direction bidirectional.*contradict"),
    "lengths": (Case("GRU", lengths=(2, 5)).build()[0], r"sequence lengths \[2, 5\], expected 0 to 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    model, said = WRONG[name]
    with pytest.raises((ModelError, UnsupportedError), match=f"^node 'layer': .*{said}") as caught:
        read(model)
    assert "\n" not in str(caught.value)


def test_caller_may_decline() -> None:
    """What has no kernel goes to onnxruntime, or is refused by name."""
    model, feeds = CASES["gru-both-ways"].build()
    reason = Refusal("no kernel for it")
    graph = read(model, decline=lambda node: reason if node.op == "recurrent" else None)
    assert [node.op for node in graph.nodes] == ["onnxruntime"] and not graph.constants
    values = evaluate(graph, feeds)
    assert_agrees([values[name] for name in graph.outputs], onnxruntime_run(model, feeds))
    with pytest.raises(UnsupportedError, match="node 'layer': operator GRU isn't compiled: no kernel for it"):
        read(model, fallback=False, decline=lambda node: reason if node.op == "recurrent" else None)


def test_steps_are_no_batch() -> None:
    """A symbolic leading dimension is the time, so the graph holds for the number of steps that it was read at."""
    net = Net({"x": ("T", 2, 3)})
    made = net.add("GRU", "x", net.weight(1, 15, 3), net.weight(1, 15, 5), hidden_size=5)
    assert not read(net.model(made)).batch


@pytest.mark.parametrize("name", CASES)
def test_lengths_and_states_that_are_trivial(name: str) -> None:
    """Lengths of all steps and states of zeros are none at all."""
    case = replace(CASES[name], lengths=(CASES[name].t,) * CASES[name].n, states="constant")
    model, _ = case.build()
    for tensor in model.graph.initializer:
        if tensor.name in ("h0", "c0"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    for node in read(model, fallback=False).nodes:
        if node.op == "recurrent":
            assert node.attrs["lengths"] is None and node.attrs["initial_h"] is None and node.attrs["given"] == ()
