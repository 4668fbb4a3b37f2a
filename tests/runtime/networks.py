"""Small networks, as ONNX models, that between them have every kind of step the executor knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Dim = int | str


@dataclass
class Net:
    """A model being built; weights are random, half of them zero."""

    inputs: dict[str, Sequence[Dim]]
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, *shape: int, zeros: float = 0.5) -> str:
        """A float32 initialiser; its name."""
        rng = np.random.default_rng((self.seed, len(self.weights)))
        fan_in = max(int(np.prod(shape[1:])), 1)
        array = rng.standard_normal(shape) / np.sqrt(fan_in) * (rng.random(shape) >= zeros)
        return self.constant(array.astype(np.float32))

    def constant(self, array: NDArray[Any]) -> str:
        """An initialiser; its name."""
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        """A node of one output; the output's name."""
        index = len(self.nodes)
        self.nodes.append(helper.make_node(op, list(inputs), [f"t{index}"], name=f"{op.lower()}{index}", **attrs))
        return f"t{index}"

    def conv(self, x: str, o: int, i: int, kernel: int = 3, **attrs: Any) -> str:
        """A convolution that keeps the size, unless `attrs` say otherwise, with a bias."""
        attrs = {"pads": [kernel // 2] * 4, **attrs}
        shape = (o, i // attrs.get("group", 1), kernel, kernel)
        return self.add("Conv", x, self.weight(*shape), self.weight(o, zeros=0), kernel_shape=shape[2:], **attrs)

    def model(self, *outputs: str, opset: int = 17) -> onnx.ModelProto:
        """The model; shapes of outputs are left to inference."""
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in self.inputs.items()]
        results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "net", ports, results, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def residual(batch: Dim = 1) -> onnx.ModelProto:
    """Two convolutions and what went in, added before the activation."""
    net = Net({"x": (batch, 3, 10, 9)})
    stem = net.add("Relu", net.conv("x", 16, 3))
    inner = net.add("Relu", net.conv(stem, 16, 16))
    return net.model(net.add("Relu", net.add("Add", net.conv(inner, 16, 16), stem)))


def concat(batch: Dim = 1) -> onnx.ModelProto:
    """Two branches side by side, read by a third convolution."""
    net = Net({"x": (batch, 4, 8, 8)})
    stem = net.add("Relu", net.conv("x", 8, 4, 1))
    both = net.add("Concat", net.add("Relu", net.conv(stem, 5, 8, 1)), net.conv(stem, 7, 8, 3), axis=1)
    return net.model(net.conv(both, 6, 12, 3))


def depthwise(batch: Dim = 1) -> onnx.ModelProto:
    """Depthwise, then 1x1, with a clip as MobileNet has it."""
    net = Net({"x": (batch, 12, 11, 7)})
    deep = net.conv("x", 12, 12, group=12)
    low, high = net.constant(np.float32(0)), net.constant(np.float32(6))
    return net.model(net.conv(net.add("Clip", deep, low, high), 20, 12, 1))


def grouped(batch: Dim = 1) -> onnx.ModelProto:
    """Three groups, a 5x5 window, and a dilation."""
    net = Net({"x": (batch, 9, 9, 9)})
    return net.model(net.conv(net.conv("x", 12, 9, 5, group=3), 4, 12, 3, dilations=[2, 2], pads=[2, 2, 2, 2]))


def strided(batch: Dim = 1) -> onnx.ModelProto:
    """Strides of 2 on odd and even sizes, and a maximum pooling."""
    net = Net({"x": (batch, 3, 21, 18)})
    half = net.add("Relu", net.conv("x", 8, 3, 7, strides=[2, 2], pads=[3, 3, 3, 3]))
    pooled = net.add("MaxPool", half, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return net.model(net.conv(pooled, 10, 8, 1, strides=[2, 2]))


def classifier(batch: Dim = 1) -> onnx.ModelProto:
    """A convolution, pooled to a vector, two fully connected layers and a softmax."""
    net = Net({"x": (batch, 3, 8, 8)})
    vector = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.conv("x", 24, 3))), axis=1)
    hidden = net.add("Relu", net.add("Gemm", vector, net.weight(37, 24), net.weight(37), transB=1))
    return net.model(net.add("Softmax", net.add("Gemm", hidden, net.weight(37, 10), net.weight(10)), axis=1))


def partitioned(batch: Dim = 1) -> onnx.ModelProto:
    """A node in the middle that isn't compiled and so runs in onnxruntime."""
    net = Net({"x": (batch, 3, 8, 8)})
    middle = net.add("LRN", net.add("Relu", net.conv("x", 8, 3)), size=3)
    return net.model(net.conv(middle, 5, 8))


def two_ports(batch: Dim = 1) -> onnx.ModelProto:
    """Two inputs and two outputs."""
    net = Net({"a": (batch, 3, 6, 6), "b": (batch, 3, 6, 6)})
    total = net.add("Add", net.conv("a", 3, 3), "b")
    return net.model(total, net.add("GlobalAveragePool", total))


NETWORKS: dict[str, Callable[..., onnx.ModelProto]] = {
    make.__name__: make for make in (residual, concat, depthwise, grouped, strided, classifier, partitioned, two_ports)
}


def feeds_for(model: onnx.ModelProto, batch: int = 1, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random inputs; a symbolic leading dimension becomes `batch`, another 8."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in model.graph.input:
        dims = [d.dim_value or (8 if i else batch) for i, d in enumerate(port.type.tensor_type.shape.dim)]
        feeds[port.name] = rng.standard_normal(dims, np.float32)
    return feeds


def onnxruntime_run(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What onnxruntime answers, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    engine = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    answer: list[NDArray[Any]] = engine.run(None, feeds)
    return answer


def assert_agrees(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> None:
    """The bound of the contract: |difference| <= 1e-4 * max |output|."""
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
