"""What converters make of a node, and what they decline: that goes to onnxruntime, with the reason said."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from prunus.errors import UnsupportedError
from prunus.graph import read as reading
from prunus.graph.convert.converters import CONVERTERS
from prunus.graph.ir import Graph, Node
from prunus.graph.read import read
from tests.graph.models import Build, ints, scalar
from tests.runtime.networks import Net

IMAGE = (1, 6, 7, 9)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without passes: nodes as they are converted."""
    monkeypatch.setattr(reading, "fuse", lambda graph: graph)


def graph_of(build: Build, shape: tuple[int, ...] = IMAGE, opset: int = 17) -> Graph:
    net = Net({"x": shape})
    return read(net.model(build(net, "x"), opset=opset))


def only(build: Build, shape: tuple[int, ...] = IMAGE, opset: int = 17) -> Node:
    """The one node that an operator becomes."""
    (node,) = graph_of(build, shape, opset).nodes
    return node


REFUSED: dict[str, tuple[Build, str]] = {
    "weight that flows": (
        lambda n, x: n.add("Conv", x, n.add("Reshape", x, ints(n, 3, 6, 7, 3))),
        "weight isn't constant",
    ),
    "bias that flows": (
        lambda n, x: n.add("Conv", x, n.weight(1, 6, 1, 1), n.add("ReduceMean", n.add("Reshape", x, ints(n, -1)))),
        "bias isn't constant",
    ),
    "two matrices that flow": (
        lambda n, x: n.add("MatMul", x, n.add("Transpose", x, perm=[0, 1, 3, 2])),
        "second matrix",
    ),
    "matrix on the left": (lambda n, x: n.add("MatMul", n.weight(4, 7), x), "second matrix"),
    "stack of matrices": (lambda n, x: n.add("MatMul", x, n.weight(6, 9, 4)), "second matrix"),
    "transposed input": (
        lambda n, x: n.add("Gemm", n.add("Flatten", x, axis=2), n.weight(6, 4), transA=1),
        "transA",
    ),
    "bias per row": (
        lambda n, x: n.add("Gemm", n.add("Flatten", x, axis=2), n.weight(63, 4), n.weight(6, 1)),
        "bias per row",
    ),
    "indices": (lambda n, x: _second(n, x, "MaxPool", kernel_shape=[2, 2]), "indices"),
    "dilated average": (lambda n, x: n.add("AveragePool", x, kernel_shape=[2, 2], dilations=[2, 2]), "dilated average"),
    "cubic": (lambda n, x: n.add("Resize", x, "", n.constant(np.float32([1, 1, 2, 2])), mode="cubic"), "mode cubic"),
    "resized channels": (lambda n, x: n.add("Resize", x, "", n.constant(np.float32([1, 2, 1, 1]))), "other axes"),
    "backwards": (lambda n, x: n.add("Slice", x, ints(n, 5), ints(n, 0), ints(n, 3), ints(n, -1)), "step -1"),
    "negative pads": (lambda n, x: n.add("Pad", x, ints(n, 0, 0, -1, 0, 0, 0, 0, 0)), "negative pads"),
    "reflected channels": (lambda n, x: n.add("Pad", x, ints(n, 0, 1, 0, 0, 0, 0, 0, 0), mode="reflect"), "other axes"),
    "wrapped": (lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 0, 0, 0, 0, 0), mode="wrap"), "mode wrap"),
    "constant piece": (lambda n, x: n.add("Concat", x, n.weight(1, 2, 7, 9), axis=1), "constant piece"),
    "bound that flows": (lambda n, x: n.add("Clip", x, n.add("ReduceMean", x, keepdims=0)), "isn't constant"),
    "entries downwards": (lambda n, x: n.add("Gather", x, ints(n, 2, 0), axis=1), "equal steps"),
    "entries unevenly": (lambda n, x: n.add("Gather", x, ints(n, 0, 1, 4), axis=1), "equal steps"),
    "slope per pixel": (lambda n, x: n.add("PRelu", x, n.weight(7, 9)), "slope"),
    "sum of several shapes": (lambda n, x: n.add("Sum", x, x, n.add("GlobalMaxPool", x)), "several shapes"),
    "no converter": (lambda n, x: n.add("LRN", x, size=3), "no converter"),
    "not float32": (lambda n, x: n.add("Relu", n.add("Cast", x, to=TensorProto.DOUBLE)), "float64"),
    "approximate gelu": (lambda n, x: n.add("Gelu", x, approximate="tanh"), "approximate"),
    "statistics that flow": (
        lambda n, x: n.add(
            "BatchNormalization", x, *[n.add("Reshape", n.add("ReduceMean", x, axes=[0, 2, 3]), ints(n, 6))] * 4
        ),
        "statistics",
    ),
    "seven axes": (lambda n, x: n.add("Relu", n.add("Reshape", x, ints(n, 1, 2, 3, 7, 3, 3, 1))), "7 axes"),
}
OPSETS = {"dilated average": 19, "wrapped": 19, "approximate gelu": 20}


def _second(net: Net, x: str, op: str, **attrs: Any) -> str:
    """An operator whose second output is used."""
    net.add(op, x, **attrs)
    net.nodes[-1].output.append("second")
    return net.add("Cast", "second", to=TensorProto.FLOAT)


@pytest.mark.parametrize("name", REFUSED)
def test_declined(name: str) -> None:
    build, reason = REFUSED[name]
    net = Net({"x": IMAGE})
    model = net.model(build(net, "x"), opset=OPSETS.get(name, 17))
    assert [node.op for node in read(model).nodes].count("onnxruntime") == 1
    with pytest.raises(UnsupportedError) as caught:
        read(model, fallback=False)
    said = str(caught.value)
    assert reason in said and said.startswith("node '") and "isn't compiled" in said and "\n" not in said


MADE: dict[str, tuple[Build, str, dict[str, Any]]] = {
    "same upper": (
        lambda n, x: n.add("Conv", x, n.weight(4, 6, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
        "conv",
        {"pads": (1, 1, 2, 1), "strides": (2, 2), "dilations": (1, 1), "group": 1, "bias": None},
    ),
    "same lower": (
        lambda n, x: n.add("Conv", x, n.weight(4, 6, 4, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
        "conv",
        {"pads": (2, 1, 1, 1)},
    ),
    "valid": (lambda n, x: n.add("Conv", x, n.weight(4, 6, 3, 3), auto_pad="VALID"), "conv", {"pads": (0, 0, 0, 0)}),
    "ceil": (
        lambda n, x: n.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        "max_pool",
        {"pads": (0, 0, 1, 1), "kernel": (2, 2), "strides": (2, 2), "dilations": (1, 1)},
    ),
    "softmax": (lambda n, x: n.add("Softmax", x), "softmax", {"axis": 3, "log": False}),
    "slice": (
        lambda n, x: n.add("Slice", x, ints(n, -3, 1), ints(n, 2**62, -1), ints(n, -1, 1), ints(n, 2, 1)),
        "slice",
        {"starts": (0, 1, 0, 6), "ends": (1, 5, 7, 9), "steps": (1, 1, 1, 2)},
    ),
    "pad": (
        lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 2, 0, 0, 3, 4), scalar(n, 1.5)),
        "pad",
        {"pads": ((0, 0), (0, 0), (1, 3), (2, 4)), "mode": "constant", "value": 1.5},
    ),
    "flatten": (lambda n, x: n.add("Flatten", x, axis=-2), "reshape", {"shape": (6, 63)}),
    "transpose": (lambda n, x: n.add("Transpose", x), "transpose", {"perm": (3, 2, 1, 0)}),
    "mean": (lambda n, x: n.add("ReduceMean", x, axes=[-1, 1]), "reduce_mean", {"axes": (1, 3), "keepdims": True}),
    "scaled": (lambda n, x: n.add("Mul", x, n.weight(6, 1, 1)), "scale_shift", {}),
    "shifted by one number": (lambda n, x: n.add("Add", x, scalar(n, 2.0)), "scale_shift", {}),
    "by width": (lambda n, x: n.add("Mul", x, n.weight(9)), "binary", {"function": "mul", "constant_first": False}),
    "number divided": (
        lambda n, x: n.add("Div", scalar(n, 2.0), x),
        "binary",
        {"function": "div", "constant_first": True},
    ),
    "power": (lambda n, x: n.add("Pow", x, scalar(n, 2.0)), "binary", {"function": "pow", "constant_first": False}),
}


@pytest.mark.parametrize("name", MADE)
def test_attributes_are_resolved(name: str) -> None:
    build, op, attrs = MADE[name]
    node = only(build)
    assert node.op == op
    assert {key: node.attrs[key] for key in attrs} == attrs


@pytest.mark.parametrize(
    ("build", "kind", "params"),
    [
        (lambda n, x: n.add("Relu", x), "relu", ()),
        (lambda n, x: n.add("Clip", x, scalar(n, 0.0)), "relu", ()),
        (lambda n, x: n.add("Clip", x, scalar(n, 0.0), scalar(n, 6.0)), "clip", (0.0, 6.0)),
        (lambda n, x: n.add("Clip", x), "clip", (-np.inf, np.inf)),
        (lambda n, x: n.add("LeakyRelu", x), "leaky_relu", (0.01,)),
        (lambda n, x: n.add("PRelu", x, n.constant(np.float32([0.25]))), "leaky_relu", (0.25,)),
        (lambda n, x: n.add("PRelu", x, n.weight(6, 1, 1)), "prelu", ()),
        (lambda n, x: n.add("HardSigmoid", x), "hard_sigmoid", (0.2, 0.5)),
        (lambda n, x: n.add("Elu", x), "elu", (1.0,)),
    ],
)
def test_activations(build: Callable[[Net, str], str], kind: str, params: tuple[float, ...]) -> None:
    activation = only(build).attrs["activation"]
    assert activation.kind == kind
    assert activation.params == pytest.approx(params)


def test_one_spatial_axis_becomes_two() -> None:
    ops = graph_of(lambda n, x: n.add("Conv", x, n.weight(4, 6, 3), pads=[2, 1], strides=[2]), (1, 6, 11)).nodes
    assert [node.op for node in ops] == ["reshape", "conv", "reshape"]
    assert ops[1].attrs["pads"] == (0, 2, 0, 1) and ops[1].attrs["strides"] == (1, 2)


def test_gemm_is_scaled_and_outputs_first() -> None:
    net = Net({"x": (2, 3)})
    matrix, bias = np.arange(12, dtype=np.float32).reshape(3, 4), np.float32([[7]])
    model = net.model(net.add("Gemm", "x", net.constant(matrix), net.constant(bias), alpha=2.0, beta=3.0))
    graph = read(model)
    (node,) = graph.nodes
    np.testing.assert_array_equal(graph.constants[node.attrs["weight"]], matrix.T * 2)
    np.testing.assert_array_equal(graph.constants[node.attrs["bias"]], [21] * 4)


def test_batch_norm_in_double_precision() -> None:
    """A mean much larger than what is left of it."""
    net = Net({"x": (1, 1, 1, 1)})
    numbers = [net.constant(np.float32([v])) for v in (1.0, 0.5, 4096.25, 0.25)]
    graph = read(net.model(net.add("BatchNormalization", "x", *numbers, epsilon=0.0)))
    (node,) = graph.nodes
    assert graph.constants[node.attrs["scale"]] == 2
    assert graph.constants[node.attrs["shift"]] == np.float32(0.5 - 4096.25 * 2)


def test_every_converter_is_an_operator() -> None:
    from onnx import defs

    assert not [name for name in CONVERTERS if not defs.has(name)]
