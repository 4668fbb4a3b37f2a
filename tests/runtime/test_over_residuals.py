"""Convolutions write over a residual that nobody needs any more, and only then."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import prunus
from prunus.runtime.plan import make_plan
from prunus.runtime.session import Session
from tests.runtime.networks import Net, onnxruntime_run
from tests.runtime.test_plan import records


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
    net, x = net_of()
    y = net.add("Add", conv(net, net.add("Relu", conv(net, x, 5)), 0), x)
    return net.model(net.add("Relu", net.add("Concat", y, conv(net, y, 1), axis=1)))


def other_pitch() -> onnx.ModelProto:
    """The residual has margins that the output lacks."""
    net, x = net_of()
    inner = net.add("Relu", conv(net, x, 3))
    return net.model(net.add("GlobalAveragePool", net.add("Add", conv(net, inner, 0), x)))


NETS: dict[Callable[[], onnx.ModelProto], int] = {
    chain: 2, needed_later: 1, residual_is_input: 0, residual_is_output: 0, in_concat: 0, other_pitch: 0,
}  # fmt: skip


def in_place(session: Session, batch: int) -> int:
    return sum(
        kind == "conv" and fields["residual"] == fields["out"]
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
