"""Convolutions and element-wise operators write over what nobody needs any more, and only then."""

from collections.abc import Callable
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import prunus
from prunus.runtime import plan
from prunus.runtime.plan import make_plan
from prunus.runtime.session import Session
from prunus.runtime.share import ELEMENTWISE
from tests.compiler.test_winograd import winograd_only
from tests.runtime.networks import Net, onnxruntime_run
from tests.runtime.test_plan import records
from tests.runtime.test_streaming import stack


def net_of(channels: int = 6) -> tuple[Net, str]:
    net = Net({"x": ("N", channels, 9, 7)})
    for kernel in (1, 3):
        for _ in range(3):
            rng = np.random.default_rng(len(net.weights))
            array = rng.integers(-2, 3, (channels, channels, kernel, kernel)) * (rng.random((1, channels, 1, 1)) < 0.6)
            net.constant(array.astype(np.float32))
    return net, net.add("Relu", conv(net, "x", 3))


def conv(net: Net, x: str, weight: int) -> str:
    kernel = 1 if weight < 3 else 3
    return net.add("Conv", x, f"w{weight}", pads=[kernel // 2] * 4)


def chain() -> onnx.ModelProto:
    """The last one's output has no margins, for nobody reads them: it lies elsewhere."""
    net, x = net_of()
    for weight in (0, 4, 1):
        x = net.add("Relu", net.add("Add", conv(net, net.add("Relu", conv(net, x, 5)), weight), x))
    return net.model(x)


def needed_later() -> onnx.ModelProto:
    net, x = net_of()
    first = net.add("Add", conv(net, net.add("Relu", conv(net, x, 5)), 0), x)
    return net.model(conv(net, net.add("Add", conv(net, first, 1), x), 3))


def residual_is_input() -> onnx.ModelProto:
    net, x = net_of()
    return net.model(net.add("Add", conv(net, x, 4), x))


def residual_is_output() -> onnx.ModelProto:
    net, x = net_of()
    return net.model(net.add("Add", conv(net, net.add("Relu", conv(net, x, 5)), 0), x), x)


def in_concat() -> onnx.ModelProto:
    """A piece of the concatenation lies elsewhere than its residual; the activation is written over the whole."""
    net, x = net_of()
    y = net.add("Add", conv(net, net.add("Relu", conv(net, x, 5)), 0), x)
    return net.model(net.add("Relu", net.add("Concat", y, conv(net, y, 1), axis=1)))


def other_pitch() -> onnx.ModelProto:
    """The residual has margins that the output lacks."""
    net, x = net_of()
    inner = net.add("Relu", conv(net, x, 3))
    return net.model(net.add("GlobalAveragePool", net.add("Add", conv(net, inner, 0), x)))


def lone(net: Net, x: str, kernel: int = 3) -> str:
    """A filter per channel."""
    array = np.random.default_rng(7).integers(-2, 3, (6, 1, kernel, kernel)).astype(np.float32)
    return net.add("Conv", x, net.constant(array), pads=[kernel // 2] * 4, group=6)


def depthwise() -> onnx.ModelProto:
    """The kernel for 3x3 filters of one channel computes some pixels twice."""
    net, x = net_of()
    return net.model(net.add("Add", lone(net, net.add("Relu", conv(net, x, 0))), x))


def elementwise() -> onnx.ModelProto:
    """A sum, and its activation; both readers of it have margins as it has."""
    net, x = net_of()
    a, b = net.add("Relu", conv(net, x, 3)), net.add("Relu", conv(net, x, 4))
    y = net.add("Clip", net.add("Mul", a, b), net.constant(np.float32(-3)), net.constant(np.float32(5)))
    return net.model(conv(net, net.add("Max", y, net.add("Neg", conv(net, y, 3))), 5))


def square() -> onnx.ModelProto:
    net, x = net_of()
    return net.model(net.add("Add", net.add("Mul", x, x), net.constant(np.float32(1))))


def gate() -> onnx.ModelProto:
    """One side is smaller than the output; the other one isn't needed any more."""
    net, x = net_of()
    gate = net.add("Clip", net.add("GlobalMaxPool", x), net.constant(np.float32(0)), net.constant(np.float32(2)))
    return net.model(conv(net, net.add("Mul", gate, x), 4))


def both_needed() -> onnx.ModelProto:
    net, x = net_of()
    y = net.add("Relu", conv(net, x, 4))
    total = net.add("Mul", x, y)
    return net.model(conv(net, total, 3), conv(net, y, 4), conv(net, x, 5))


def part_of_itself() -> onnx.ModelProto:
    """The other side is a view of the same buffer: its first channel is read for all."""
    net, x = net_of()
    ends = [net.constant(np.array([n], np.int64)) for n in (0, 1, 1)]
    return net.model(conv(net, net.add("Sub", x, net.add("Slice", x, *ends)), 4))


def of_the_input() -> onnx.ModelProto:
    net = Net({"x": ("N", 6, 9, 7)})
    return net.model(net.add("Mul", net.add("Add", "x", net.add("Abs", "x")), "x"))


NETS: dict[Callable[[], onnx.ModelProto], int] = {
    chain: 2, needed_later: 1, residual_is_input: 0, residual_is_output: 0, in_concat: 1, other_pitch: 0,
    depthwise: 0, elementwise: 2, square: 2, gate: 1, both_needed: 0, part_of_itself: 0, of_the_input: 2,
}  # fmt: skip


def in_place(session: Session, batch: int) -> int:
    return sum(
        kind in ("conv", "winograd", "depthwise", "packed_depthwise", "map", "binary")
        and fields["out"] in [fields.get(side) for side in (("x", "other") if kind in ELEMENTWISE else ("residual",))]
        for kind, fields in records(make_plan(session.program, batch))
    )


@pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("batch, threads", [(1, 1), (3, 2)])
def test_exact_and_where_expected(make: Callable[[], onnx.ModelProto], batch: int, threads: int) -> None:
    model = make()
    session = prunus.compile(model, tune="off", threads=threads)
    assert in_place(session, batch) == NETS[make]
    x = np.random.default_rng(1).integers(-2, 3, (batch, 6, 9, 7)).astype(np.float32)
    expected = onnxruntime_run(model, {"x": x})
    for _ in range(2):  # the second run finds what the first one left
        for got, wanted in zip(session.run(None, {"x": x}), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("make", [chain, needed_later, residual_is_output, other_pitch, depthwise, gate, square])
def test_winograd(make: Callable[[], onnx.ModelProto]) -> None:
    with winograd_only():
        session = prunus.compile(make(), tune="off", threads=2)
    same_apart(session)
    assert in_place(session, 2) >= NETS[make]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("make", [chain, needed_later, residual_is_output, other_pitch, depthwise, gate, square])
def test_packed(make: Callable[[], onnx.ModelProto], precision: str) -> None:
    """Words of channels are read and written whole, so their residuals may be written over too."""
    feeds = [{"x": np.random.default_rng(4).standard_normal((2, 6, 9, 7), np.float32)}]
    session = prunus.compile(make(), precision=precision, calibration=feeds, tune="off", threads=2)
    same_apart(session)
    kinds = [kind for kind, _ in records(make_plan(session.program))]
    wanted = {chain: 2, needed_later: 1, depthwise: 1}.get(make, 0)
    assert in_place(session, 2) >= wanted and ("packed_depthwise" in kinds) == (make is depthwise)


def same_apart(session: Session) -> None:
    """The same bytes as where every output has memory of its own, which a run makes use of."""
    feeds = {"x": np.random.default_rng(5).integers(-2, 3, (2, 6, 9, 7)).astype(np.float32)}
    with mock.patch.object(plan, "taken_over", lambda draft: {}):
        expected = session.run(None, feeds)
        apart = session.memory()["arena"]
    session.run(None, {"x": feeds["x"][:1]})
    for _ in range(2):
        for got, wanted in zip(session.run(None, feeds), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert session.memory()["arena"] <= apart


@pytest.mark.parametrize("op, copies", [("GRU", 4), ("LSTM", 6)])
@pytest.mark.parametrize("batch", [1, 2])
def test_copies_that_only_carry_on_are_taken_away(op: str, copies: int, batch: int) -> None:
    """Of two layers: input and states to where products read, once each; the last output goes to the caller at once.
    What is wanted twice is still copied."""
    model = stack(op, t=1, n=batch)
    del model.graph.output[1:]
    session = prunus.compile(model, tune="off", threads=1)
    kinds = [kind for kind, _ in records(make_plan(session.program, batch))]
    assert batch > 1 or kinds.count("copy") == copies
    rng = np.random.default_rng(0)
    feeds = {
        port.name: rng.standard_normal([int(n) for n in port.shape]).astype(np.float32) for port in session.get_inputs()
    }
    np.testing.assert_allclose(session.run(None, feeds)[0], onnxruntime_run(model, feeds)[0], rtol=1e-5, atol=1e-6)
    twice = stack(op, t=1, n=batch)
    twice.graph.output.append(helper.make_tensor_value_info("s0", TensorProto.FLOAT, None))
    session = prunus.compile(twice, tune="off", threads=1)
    for found, expected in zip(session.run(None, feeds), onnxruntime_run(twice, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_a_partition_reads_is_not_a_detour() -> None:
    """It is no record: a cell's outputs, and an input turned into another shape, stay where it reads them."""
    model = stack("GRU", t=1)
    del model.graph.output[1:]
    model.graph.node.append(helper.make_node("Sinh", ["s1"], ["odd"]))
    model.graph.node.append(helper.make_node("CumSum", ["s1", "axis"], ["sums"]))
    for name in ("odd", "sums"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = prunus.compile(model, tune="off", threads=1)
    assert any(row.op == "onnxruntime" for row in session.explain())
    rng = np.random.default_rng(0)
    for _ in range(2):
        feeds = {
            port.name: rng.standard_normal([int(n) for n in port.shape]).astype(np.float32)
            for port in session.get_inputs()
        }
        for found, expected in zip(session.run(None, feeds), onnxruntime_run(model, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
