"""What is put together or cut apart lies in one buffer: the copies that are left, and the same numbers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import prunus
from prunus.errors import PrunusError, PrunusWarning
from prunus.runtime import arrange, plan
from prunus.runtime.plan import make_plan
from prunus.runtime.session import Session
from tests.graph.models import ints
from tests.graph.test_random_networks import networks
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run
from tests.runtime.test_plan import records

Build = Callable[[Net, str], tuple[str, ...]]


@dataclass(frozen=True)
class Case:
    """A network on x[N, 8, 9, 7]; copies at batch 1 and at batch 3, those of its outputs left out."""

    build: Build
    copies: tuple[int, int] = (0, 0)

    def model(self) -> onnx.ModelProto:
        net = Net({"x": ("N", 8, 9, 7)})
        return net.model(*self.build(net, net.add("Relu", net.conv("x", 8, 8))))


def fire(net: Net, x: str) -> tuple[str, ...]:
    """SqueezeNet: readers with and without padding, and a pool."""
    for _ in range(2):
        squeezed = net.add("Relu", net.conv(x, 4, int(net_channels(net, x)), 1))
        pieces = [net.add("Relu", net.conv(squeezed, 6, 4, kernel)) for kernel in (1, 3)]
        x = net.add("Concat", *pieces, axis=1)
    return net.conv(net.add("MaxPool", x, kernel_shape=[2, 2]), 3, 12), x


def net_channels(net: Net, x: str) -> int:
    return 12 if any(node.output[0] == x and node.op_type == "Concat" for node in net.nodes) else 8


def dense_block(net: Net, x: str) -> tuple[str, ...]:
    """DenseNet: each layer reads all that came before."""
    made, channels = [x], 8
    for _ in range(3):
        both = net.add("Concat", *made, axis=1)
        made.append(net.conv(net.add("Relu", both), 4, channels))
        channels += 4
    last = net.add("Concat", *made, axis=1)
    return net.conv(last, 5, channels), net.add("MaxPool", last, kernel_shape=[2, 2])


def nested(net: Net, x: str) -> tuple[str, ...]:
    inner = net.add("Concat", x, net.conv(x, 4, 8), axis=1)
    outer = net.add("Concat", net.conv(inner, 4, 12), inner, axis=1)
    return net.conv(outer, 3, 16), inner


def with_the_input(net: Net, x: str) -> tuple[str, ...]:
    """The caller's array is copied, and only that."""
    return (net.conv(net.add("Concat", x, "x", net.conv(x, 4, 8), axis=1), 3, 20),)


def twice(net: Net, x: str) -> tuple[str, ...]:
    return (net.conv(net.add("Concat", x, x, axis=1), 3, 16),)


def in_two(net: Net, x: str) -> tuple[str, ...]:
    """At another place in each: copied to the second."""
    a, b = net.conv(x, 4, 8), net.conv(x, 4, 8, 1)
    one, other = net.add("Concat", a, b, axis=1), net.add("Concat", b, a, axis=1)
    return net.conv(one, 3, 8), net.conv(other, 3, 8)


def of_outputs(net: Net, x: str) -> tuple[str, ...]:
    a, b = net.conv(x, 4, 8), net.conv(x, 4, 8, 1)
    return a, net.add("Concat", a, b, axis=1), b


def split_channels(net: Net, x: str) -> tuple[str, ...]:
    """As CSP blocks: a part goes through layers, and beside the other."""
    net.nodes.append(onnx.helper.make_node("Split", [x, ints(net, 3, 5)], ["left", "right"], name="split", axis=1))
    made = net.conv("right", 5, 5)
    return net.conv("left", 2, 3), net.add("MaxPool", made, kernel_shape=[2, 2]), net.conv("right", 2, 5, 1)


def split_and_joined(net: Net, x: str) -> tuple[str, ...]:
    """A piece that goes on into a concatenation is copied there."""
    net.nodes.append(onnx.helper.make_node("Split", [x, ints(net, 3, 5)], ["left", "right"], name="split", axis=1))
    return (net.conv(net.add("Concat", "left", net.conv("right", 5, 5), axis=1), 2, 8),)


def sliced(net: Net, x: str) -> tuple[str, ...]:
    """Channels from 2 to 7 are a view; every other one, or a box of pixels, isn't."""
    view = net.add("Slice", x, ints(net, 2), ints(net, 7), ints(net, 1))
    stepped = net.add("Slice", x, ints(net, 0), ints(net, 8), ints(net, 1), ints(net, 2))
    box = net.add("Slice", x, ints(net, 1, 1), ints(net, 7, 8), ints(net, 1, 2))
    return tuple(net.conv(part, 2, n) for part, n in ((view, 5), (stepped, 4), (box, 6)))


def split_of_the_input(net: Net, x: str) -> tuple[str, ...]:
    cut = net.add("Slice", "x", ints(net, 2), ints(net, 7), ints(net, 1))
    return net.conv(cut, 2, 5), x


def vectors(net: Net, x: str) -> tuple[str, ...]:
    """Side by side at batch 1 only: at others their rows alternate. One of the pieces is reshaped before."""
    pooled = net.add("Flatten", net.add("GlobalAveragePool", net.conv(x, 5, 8)))
    hidden = net.add("Gemm", pooled, net.weight(5, 3), net.weight(3))
    both = net.add("Concat", pooled, hidden, net.add("Sigmoid", hidden), axis=1)
    return (net.add("Gemm", both, net.weight(11, 4), net.weight(4)),)


def vectors_cut(net: Net, x: str) -> tuple[str, ...]:
    pooled = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.nodes.append(onnx.helper.make_node("Split", [pooled, ints(net, 3, 5)], ["u", "v"], name="split", axis=1))
    first, second = (net.add("Gemm", p, net.weight(n, 4), net.weight(4)) for p, n in (("u", 3), ("v", 5)))
    return net.add("Mul", first, net.add("Sigmoid", second)), net.add("Neg", "v")


def vectors_nested(net: Net, x: str) -> tuple[str, ...]:
    pooled = net.add("GlobalAveragePool", x)
    inner = net.add("Concat", pooled, net.add("Sigmoid", pooled), axis=1)
    outer = net.add("Concat", net.add("Tanh", inner), inner, pooled, axis=1)
    return net.conv(outer, 3, 40, 1), inner


def rows(net: Net, x: str) -> tuple[str, ...]:
    """Along another axis than channels nothing is a view."""
    return (net.conv(net.add("Concat", x, net.conv(x, 8, 8), axis=2), 3, 8),)


CASES = {
    case.build.__name__: case
    for case in (
        Case(fire), Case(dense_block), Case(nested), Case(with_the_input, (1, 1)), Case(twice, (1, 1)),
        Case(in_two, (2, 2)), Case(of_outputs), Case(split_channels), Case(split_and_joined, (1, 1)),
        Case(sliced, (2, 2)), Case(split_of_the_input, (1, 1)), Case(vectors, (0, 3)), Case(vectors_cut, (0, 2)),
        Case(vectors_nested, (1, 5)), Case(rows, (2, 2)),
    )
}  # fmt: skip


def copies(session: Session, batch: int) -> int:
    kinds = [kind for kind, _ in records(make_plan(session.program, batch))]
    return kinds.count("copy") - len(session.program.outputs)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch, threads", [(1, 1), (3, 2)])
def test_copies_and_numbers(name: str, batch: int, threads: int) -> None:
    model = CASES[name].model()
    session = prunus.compile(model, tune="off", threads=threads)
    feeds = feeds_for(model, batch, seed=3)
    expected = onnxruntime_run(model, feeds)
    for _ in range(2):  # the second run finds what the first one left
        assert_agrees(session.run(None, feeds), expected)
    assert copies(session, batch) == CASES[name].copies[batch > 1]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("name", ["fire", "dense_block", "nested"])
def test_packed_channels(name: str, precision: str) -> None:
    """Whole words of one format lie in the concatenation too."""
    model = CASES[name].model()
    feeds = feeds_for(model, 2, seed=3)
    session = prunus.compile(model, precision=precision, calibration=[feeds], tune="off", threads=1)
    for got, wanted in zip(session.run(None, feeds), onnxruntime_run(model, feeds), strict=True):
        assert np.linalg.norm(got - wanted) < 0.05 * np.linalg.norm(wanted)
    for batch in (1, 2):
        assert copies(session, batch) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from(["fp32", "bf16", "int8"]), st.sampled_from([1, 2]))
def test_random_networks_answer_as_with_copies(model: onnx.ModelProto, precision: str, threads: int) -> None:
    """The same bytes as where every tensor has memory of its own."""
    feeds = feeds_for(model, seed=threads)
    calibration = [feeds] if precision == "int8" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrunusWarning)
            session = prunus.compile(
                model, precision=precision, calibration=calibration, tune="off", threads=threads
            )  # fmt: skip
    except PrunusError:
        assume(False)
    found = [session.run(None, feeds) for _ in range(2)]
    with (
        mock.patch.object(plan, "taken_over", lambda draft: {}),
        mock.patch.object(arrange, "channel_views", lambda *arguments: {}),
        mock.patch.object(arrange, "flat_views", lambda *arguments: None),
    ):
        expected = Session(session.program, session.code, session.constants, threads).run(None, feeds)
    for got in found:
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
