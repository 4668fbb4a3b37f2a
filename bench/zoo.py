"""Networks of known architecture with seeded random weights, as ONNX (opset 17, fp32, BatchNorm folded away).

ZOO maps a name to its builder: builder(batch=1) -> ModelProto with input "x" and output "y". A `batch` of "N" leaves
the leading dimension symbolic. Weights are He-normal, the ends of residual branches damped to keep activations near 1.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str


class Builder:
    """A graph under construction; `channels` and `size` describe the value made last."""

    def __init__(self, name: str, channels: int, size: int, batch: Dim) -> None:
        self.name, self.batch = name, batch
        self.input = [batch, channels, size, size]
        self.shapes = {"x": (channels, size)}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(2108)

    def constant(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        values = self.rng.standard_normal(shape, np.float32) * np.float32(scale)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, op: str, inputs: list[str], channels: int, size: int, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.shapes[name] = (channels, size)
        return name

    def conv(
        self, x: str, filters: int, kernel: int, stride: int = 1, group: int = 1, gain: float = 2.0, act: str = ""
    ) -> str:
        channels, size = self.shapes[x]
        index, pad = len(self.nodes), kernel // 2
        shape = (filters, channels // group, kernel, kernel)
        weight = self.constant(f"conv{index}.weight", shape, (gain / np.prod(shape[1:])) ** 0.5)
        bias = self.constant(f"conv{index}.bias", (filters,), 0.1)
        y = self.add(
            "Conv", [x, weight, bias], filters, (size + 2 * pad - kernel) // stride + 1, kernel_shape=[kernel] * 2,
            strides=[stride] * 2, pads=[pad] * 4, group=group,
        )  # fmt: skip
        return self.act(y, act) if act else y

    def act(self, x: str, act: str) -> str:
        if act == "relu":
            return self.add("Relu", [x], *self.shapes[x])
        if not any(w.name == "six" for w in self.weights):
            self.weights += [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0), ("six", 6))]
        return self.add("Clip", [x, "zero", "six"], *self.shapes[x])

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        channels, size = self.shapes[x]
        return self.add(
            "MaxPool", [x], channels, (size + 2 * pad - kernel) // stride + 1, kernel_shape=[kernel] * 2,
            strides=[stride] * 2, pads=[pad] * 4,
        )  # fmt: skip

    def flat(self, x: str, average: bool = True) -> str:
        channels, size = self.shapes[x]
        if average:
            x, size = self.add("GlobalAveragePool", [x], channels, 1), 1
        return self.add("Flatten", [x], channels * size * size, 1)

    def linear(self, x: str, outputs: int, gain: float = 1.0, act: str = "") -> str:
        inputs, index = self.shapes[x][0], len(self.nodes)
        weight = self.constant(f"fc{index}.weight", (outputs, inputs), (gain / inputs) ** 0.5)
        bias = self.constant(f"fc{index}.bias", (outputs,), 0.1)
        y = self.add("Gemm", [x, weight, bias], outputs, 1, transB=1)
        return self.act(y, act) if act else y

    def model(self) -> onnx.ModelProto:
        last = self.nodes[-1]
        outputs = self.shapes[last.output[0]][0]
        last.output[0] = "y"
        graph = helper.make_graph(
            self.nodes, self.name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [self.batch, outputs])], self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet(name: str, depths: tuple[int, ...], bottleneck: bool, batch: Dim = 1, size: int = 224) -> onnx.ModelProto:
    """ResNet for `size` x `size`. Source: He et al., CVPR 2016, arXiv:1512.03385, table 1 (stride in the 3x3)."""
    b = Builder(name, 3, size, batch)
    x = b.pool(b.conv("x", 64, 7, 2, act="relu"), 3, 2, 1)
    for stage, depth in enumerate(depths):
        width, out = 64 << stage, (256 if bottleneck else 64) << stage
        for i in range(depth):
            stride = 2 if stage and i == 0 else 1
            if bottleneck:
                y = b.conv(b.conv(x, width, 1, act="relu"), width, 3, stride, act="relu")
                y = b.conv(y, out, 1, gain=0.5)
            else:
                y = b.conv(b.conv(x, width, 3, stride, act="relu"), out, 3, gain=0.5)
            short = x if b.shapes[x] == b.shapes[y] else b.conv(x, out, 1, stride, gain=1.0)
            x = b.act(b.add("Add", [y, short], *b.shapes[y]), "relu")
    b.linear(b.flat(x), 1000)
    return b.model()


def vgg16(batch: Dim = 1) -> onnx.ModelProto:
    """VGG-16. Source: Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, configuration D."""
    b, x = Builder("vgg16", 3, 224, batch), "x"
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = b.conv(x, width, 3, act="relu")
        x = b.pool(x, 2, 2)
    x = b.flat(x, average=False)
    b.linear(b.linear(b.linear(x, 4096, 2.0, "relu"), 4096, 2.0, "relu"), 1000)
    return b.model()


def vgg16_small(batch: Dim = 1) -> onnx.ModelProto:
    """VGG-16 for images of 32 x 32: the same convolutions, then 512 to 512 to 10, as is usual for CIFAR-10.
    Source: Liu and Deng, ACPR 2015, "Very deep convolutional neural network based image classification".
    """
    b, x = Builder("vgg16-32", 3, 32, batch), "x"
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = b.conv(x, width, 3, act="relu")
        x = b.pool(x, 2, 2)
    b.linear(b.linear(b.flat(x, average=False), 512, 2.0, "relu"), 10)
    return b.model()


def mobilenetv2(batch: Dim = 1) -> onnx.ModelProto:
    """MobileNetV2. Source: Sandler et al., CVPR 2018, arXiv:1801.04381, table 2."""
    b = Builder("mobilenetv2", 3, 224, batch)
    x = b.conv("x", 32, 3, 2, act="relu6")
    table = (
        (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 3, 32, 3, 2), (6, 3, 64, 4, 2), (6, 3, 96, 3, 1), (6, 3, 160, 3, 2),
        (6, 3, 320, 1, 1),
    )  # fmt: skip
    return inverted_residuals(b, x, table)


def efficientnet_lite0(batch: Dim = 1) -> onnx.ModelProto:
    """EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for swish.
    Source: Tan and Le, ICML 2019, arXiv:1905.11946, table 1; the "lite" variants are Google's of 2020.
    """
    b = Builder("efficientnet-lite0", 3, 224, batch)
    x = b.conv("x", 32, 3, 2, act="relu6")
    table = (
        (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    )  # fmt: skip
    return inverted_residuals(b, x, table)


def inverted_residuals(b: Builder, x: str, table: tuple[tuple[int, int, int, int, int], ...]) -> onnx.ModelProto:
    """Blocks of rows (expansion, kernel, channels out, depth, first stride), and the head of 1280 channels."""
    for expand, kernel, out, depth, first in table:
        for i in range(depth):
            inner, stride = b.shapes[x][0] * expand, first if i == 0 else 1
            y = b.conv(x, inner, 1, act="relu6") if expand > 1 else x
            y = b.conv(y, inner, kernel, stride, group=inner, act="relu6")
            same = stride == 1 and b.shapes[x][0] == out
            y = b.conv(y, out, 1, gain=0.5 if same else 1.0)
            x = b.add("Add", [x, y], *b.shapes[y]) if same else y
    b.linear(b.flat(b.conv(x, 1280, 1, act="relu6")), 1000)
    return b.model()


ZOO: dict[str, Callable[..., onnx.ModelProto]] = {
    "resnet18": partial(resnet, "resnet18", (2, 2, 2, 2), False),
    "resnet50": partial(resnet, "resnet50", (3, 4, 6, 3), True),
    "vgg16": vgg16,
    "vgg16-32": vgg16_small,
    "mobilenetv2": mobilenetv2,
    "efficientnet-lite0": efficientnet_lite0,
}
