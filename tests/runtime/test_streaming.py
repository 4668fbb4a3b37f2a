"""Streaming: states stay in the session; steps one by one are the whole sequence, bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.compiler.compile import compile
from prunus.errors import FeedError, TargetError, UnsupportedError
from prunus.runtime.session import load
from tests.graph.recurrent import Case


def stack(op: str = "GRU", t: int | str = "t", n: int | str = 1, states: bool = True) -> onnx.ModelProto:
    """Two layers, one on the other, with their states as inputs and outputs."""
    rng, gates, h, i = np.random.default_rng(3), {"GRU": 3, "LSTM": 4}[op], 24, 7
    letters = "hc" if op == "LSTM" else "h"
    nodes, weights, ports = [], [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [t, n, i])]
    results, x = [], "x"
    for layer in range(2):
        size = i if layer == 0 else h
        for name, shape in (("w", (1, gates * h, size)), ("r", (1, gates * h, h)), ("b", (1, 2 * gates * h))):
            array = (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"{name}{layer}"))
        given = [f"{letter}{layer}" for letter in letters] if states else []
        last = [f"last_{letter}{layer}" for letter in letters]
        inputs = [x, f"w{layer}", f"r{layer}", f"b{layer}", *(["", *given] if given else [])]
        nodes.append(helper.make_node(op, inputs, [f"y{layer}", *last], name=f"layer{layer}", hidden_size=h))
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "axis"], [f"s{layer}"]))
        ports += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, h]) for name in given]
        results += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in last if states]
        x = f"s{layer}"
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "stack", ports, [out, *results], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def sequence(t: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((t, n, 7)).astype(np.float32)


def whole(op: str, x: np.ndarray) -> np.ndarray:
    session = compile(stack(op, *x.shape[:2], states=False), tune="off", threads=1)
    return session.run(["s1"], {"x": x})[0]


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
@pytest.mark.parametrize("chunks", [(1,) * 6, (2, 1, 3), (3, 3), (1, 5)])
def test_pieces_are_the_whole(op: str, chunks: tuple[int, ...]) -> None:
    x = sequence(6)
    session = compile(stack(op, n=1), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    assert [port.name for port in session.get_inputs()] == ["x"]
    assert [port.name for port in session.get_outputs()] == ["s1"]
    for _ in range(2):  # and once more after a reset
        found, at = [], 0
        for n in chunks:
            found.append(session.run(None, {"x": x[at : at + n]})[0])
            at += n
        np.testing.assert_array_equal(np.concatenate(found), whole(op, x))
        session.reset()


def test_saved(tmp_path: Path) -> None:
    x = sequence(4)
    session = compile(stack(t=1), tune="off", threads=1, streaming=True)
    session.save(tmp_path / "s.prunus")
    loaded = load(tmp_path / "s.prunus", 1)
    found = [loaded.run(None, {"x": frame[None]})[0] for frame in x]
    np.testing.assert_array_equal(np.concatenate(found), whole("GRU", x))


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
@pytest.mark.parametrize("planned", [1, 3, 20])
def test_saved_and_fed_chunks(op: str, planned: int, tmp_path: Path) -> None:
    """A loaded artefact plans anew for chunks of another length, and goes on from the states that there are."""
    x = sequence(30)
    session = compile(stack(op), tune="off", threads=1, streaming=True, input_shapes={"x": (planned, 1, 7)})
    session.save(tmp_path / "s.prunus")
    loaded = load(tmp_path / "s.prunus", 1)
    for chunks in ((1, 2, 1, 26), (30,), (9, 1, 20)):
        found, at = [], 0
        for n in chunks:
            found.append(loaded.run(None, {"x": x[at : at + n]})[0])
            at += n
        np.testing.assert_allclose(np.concatenate(found), whole(op, x), rtol=1e-5, atol=1e-6)
        loaded.reset()
    with pytest.raises(FeedError, match=r"input 'x': shape \[0, 1, 7\], expected \[steps, 1, 7\]"):
        loaded.run(None, {"x": sequence(0)})
    with pytest.raises(FeedError, match=r"input 'x': shape \[1, 3, 7\], expected \[steps, 1, 7\]"):
        loaded.run(None, {"x": sequence(1, 3)})


def test_chunks_of_many_steps() -> None:
    """Whose input's part is a product of its own: the same but for rounding."""
    x = sequence(40)
    session = compile(stack("LSTM"), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    found = [session.run(None, {"x": part})[0] for part in (x[:1], x[1:21], x[21:22], x[22:])]
    np.testing.assert_allclose(np.concatenate(found), whole("LSTM", x), rtol=1e-5, atol=1e-6)


def test_profiling_leaves_the_states() -> None:
    x = sequence(4)
    session = compile(stack("LSTM"), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    found = [session.run(None, {"x": x[:1]})[0]]
    for steps in (1, 2):
        assert [row for row in session.profile({"x": x[:steps] + 5}, 3) if row.op == "recurrent"]
    found.append(session.run(None, {"x": x[1:]})[0])
    np.testing.assert_array_equal(np.concatenate(found), whole("LSTM", x))
    session.profile({"x": x[:2] + 5}, 1)  # a plan of another length has the states by now
    session.reset()
    session.profile({"x": x[:1]}, 1)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], whole("LSTM", x))


def test_nan_is_gone_after_reset() -> None:
    x = sequence(3)
    session = compile(stack("LSTM", t=1), tune="off", threads=1, streaming=True)
    session.run(None, {"x": x[:1] * np.float32("nan")})
    assert np.isnan(session.run(None, {"x": x[:1]})[0]).all(), "the state has it"
    session.reset()
    found = [session.run(None, {"x": frame[None]})[0] for frame in x]
    np.testing.assert_array_equal(np.concatenate(found), whole("LSTM", x))


def test_reset_before_the_planned_length_ever_ran() -> None:
    x = sequence(2)
    session = compile(stack(), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    first = session.run(None, {"x": x})[0]
    session.reset()
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], first)


def test_constant_states_come_back() -> None:
    model, feeds = Case("GRU", t=2, n=1, h=9, states="constant", outputs=(0,)).build()
    session = compile(model, tune="off", threads=1, streaming=True)
    first = session.run(None, feeds)[0]
    assert not np.array_equal(session.run(None, feeds)[0], first)
    session.reset()
    np.testing.assert_array_equal(session.run(None, feeds)[0], first)


def test_another_batch() -> None:
    session = compile(stack(n="n"), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    session.run(None, {"x": sequence(1)})
    with pytest.raises(FeedError, match="batch size 1 was fed a batch of 3"):
        session.run(None, {"x": sequence(1, 3)})


def test_no_steps() -> None:
    session = compile(stack(), tune="off", threads=1, streaming=True, input_shapes={"x": (1, 1, 7)})
    with pytest.raises(FeedError, match=r"input 'x': shape \[0, 1, 7\]"):
        session.run(None, {"x": sequence(0)})


@pytest.mark.parametrize(
    "case, message",
    [
        (Case("GRU", direction="reverse"), "'layer' reads its steps backwards"),
        (Case("GRU", direction="bidirectional"), "reads its steps backwards"),
        (Case("GRU", lengths=(2, 3)), "'layer' has sequence lengths"),
        (Case("GRU", lengths=(2, 3), lengths_given=True), "'layer' has sequence lengths"),
    ],
)
def test_refused(case: Case, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        compile(case.build()[0], tune="off", threads=1, streaming=True)


def test_refused_without_layers_or_with_streams() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    ports: Any = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])] for name in "xy"]
    model = helper.make_model(helper.make_graph([relu], "net", *ports), opset_imports=[helper.make_opsetid("", 17)],
                              ir_version=9)  # fmt: skip
    with pytest.raises(UnsupportedError, match="no recurrent layer"):
        compile(model, tune="off", streaming=True)
    with pytest.raises(TargetError, match="streams=2"):
        compile(stack(t=1), tune="off", streaming=True, streams=2)
