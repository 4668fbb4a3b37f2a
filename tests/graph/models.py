"""Small models: every form of the operators that changed over opsets, and shapes that are easy to get wrong."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.graph.recurrent import CASES as RECURRENT
from tests.runtime.networks import Net

Build = Callable[[Net, str], str]
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {}


def ints(net: Net, *values: int) -> str:
    """An int64 initialiser."""
    return net.constant(np.array(values, np.int64))


def floats(net: Net, *values: float) -> str:
    """A float32 initialiser."""
    return net.constant(np.array(values, np.float32))


def scalar(net: Net, value: float) -> str:
    """A float32 initialiser of rank 0."""
    return net.constant(np.array(value, np.float32))


def positive(net: Net, n: int) -> str:
    """A float32 initialiser of values from 0.5 on."""
    return net.constant((0.5 + np.random.default_rng((7, len(net.weights))).random(n)).astype(np.float32))


def batch_norm(net: Net, x: str, c: int) -> str:
    """BatchNormalization over c channels."""
    statistics = positive(net, c), net.weight(c, zeros=0), net.weight(c, zeros=0), positive(net, c)
    return net.add("BatchNormalization", x, *statistics)


def around(build: Build, shape: Sequence[int] = (1, 6, 7, 9), opset: int = 17) -> onnx.ModelProto:
    """The operator on the input itself, and, on four axes, on what a convolution made, read by another."""
    net = Net({"x": shape})
    outputs = [build(net, "x")]
    if len(shape) == 4:
        made = net.add("Relu", net.conv("x", shape[1], shape[1]))
        outputs.append(net.add("Abs", build(net, made)))
    return net.model(*outputs, opset=opset)


def register(name: str, build: Build, shape: Sequence[int] = (1, 6, 7, 9), opset: int = 17) -> None:
    """Add a model to the list."""
    assert name not in MODELS
    MODELS[name] = lambda: around(build, shape, opset)


NEWEST = 23  # that onnxruntime is sure to run
for version in (9, 11, 12):
    register(f"squeeze-{version}", lambda n, x: n.add("Squeeze", x, axes=[0]), (1, 5, 6, 7), version)
    register(f"unsqueeze-{version}", lambda n, x: n.add("Unsqueeze", x, axes=[0, 3]), opset=version)
    register(f"split-{version}", lambda n, x: n.add("Add", *split(n, x, [3, 3])), opset=version)
    register(f"reduce-mean-{version}", lambda n, x: n.add("ReduceMean", x, axes=[2, 3]), opset=version)
    for axis in (0, 1, 3):
        register(f"softmax-{version}-{axis}", lambda n, x, a=axis: n.add("Softmax", x, axis=a), opset=version)
for version in (13, 18, NEWEST):
    register(f"squeeze-{version}", lambda n, x: n.add("Squeeze", x, ints(n, 0)), (1, 5, 6, 7), version)
    register(f"unsqueeze-{version}", lambda n, x: n.add("Unsqueeze", x, ints(n, 0, -1)), opset=version)
    for axis in (0, -2):
        register(f"softmax-{version}-{axis}", lambda n, x, a=axis: n.add("Softmax", x, axis=a), opset=version)
    register(f"log-softmax-{version}", lambda n, x: n.add("LogSoftmax", x, axis=1), opset=version)
    register(f"batch-norm-{version}", lambda n, x: batch_norm(n, x, 6), opset=version)
for version in (18, NEWEST):
    for axes in ([2, 3], [1], [-1], [0, 1]):
        register(
            f"reduce-mean-{version}-{axes}",
            lambda n, x, a=axes: n.add("ReduceMean", x, ints(n, *a), keepdims=0),
            opset=version,
        )
register("reduce-mean-of-all", lambda n, x: n.add("ReduceMean", x, keepdims=0))
register("reduce-mean-noop", lambda n, x: n.add("ReduceMean", x, noop_with_empty_axes=1), opset=18)
register("squeeze-all", lambda n, x: n.add("Squeeze", x), (1, 5, 1, 7))
register("batch-norm-9", lambda n, x: batch_norm(n, x, 6), opset=9)
register("batch-norm-rank-2", lambda n, x: batch_norm(n, x, 6), (4, 6))
register("batch-norm-rank-3", lambda n, x: batch_norm(n, x, 6), (2, 6, 5))
register("log-softmax-9", lambda n, x: n.add("LogSoftmax", x, axis=2), opset=9)

register("clip-9", lambda n, x: n.add("Clip", x, min=-0.5, max=0.5), opset=9)
register("clip-9-below", lambda n, x: n.add("Clip", x, min=0.1), opset=9)
register("clip-9-nothing", lambda n, x: n.add("Clip", x), opset=9)
for version in (11, 13, NEWEST):
    register(f"clip-{version}", lambda n, x: n.add("Clip", x, scalar(n, -0.5), scalar(n, 0.5)), opset=version)
    register(f"clip-{version}-above", lambda n, x: n.add("Clip", x, "", scalar(n, 0.5)), opset=version)
register("clip-relu", lambda n, x: n.add("Clip", x, scalar(n, 0.0)))
register("clip-infinite", lambda n, x: n.add("Clip", x, scalar(n, 0.0), scalar(n, np.inf)))
register("clip-bound-that-flows", lambda n, x: n.add("Clip", x, n.add("ReduceMean", x, keepdims=0)))

register("slice-9", lambda n, x: n.add("Slice", x, axes=[1, 3], starts=[1, -5], ends=[4, 100]), opset=9)
register("slice-9-no-axes", lambda n, x: n.add("Slice", x, starts=[0, 2, 1], ends=[1, 5, 6]), opset=9)
for version in (10, 13, NEWEST):
    register(
        f"slice-{version}",
        lambda n, x: n.add("Slice", x, ints(n, 1, 0, -8), ints(n, -1, 2**60, 9), ints(n, 1, 2, -1), ints(n, 2, 3, 1)),
        opset=version,
    )
register("slice-no-axes", lambda n, x: n.add("Slice", x, ints(n, 0, 3), ints(n, 1, 6)))
register("slice-backwards", lambda n, x: n.add("Slice", x, ints(n, -1), ints(n, -100), ints(n, 3), ints(n, -1)))
register("slice-int32", lambda n, x: n.add("Slice", x, *(n.constant(np.array([i], np.int32)) for i in (1, 5, 2))))


def split(
    net: Net, x: str, sizes: Sequence[int] | None, *more: str, axis: int = 1, parts: int = 2, **attrs: Any
) -> list[str]:
    """A Split; the names of its parts."""
    names = [f"s{len(net.nodes)}.{i}" for i in range(parts)]
    attrs |= {"split": sizes} if sizes else {}
    net.nodes.append(helper.make_node("Split", [x, *more], names, axis=axis, name=names[0], **attrs))
    return names


for version in (13, 18, NEWEST):
    register(
        f"split-{version}", lambda n, x: n.add("Concat", *split(n, x, None, ints(n, 4, 2))[::-1], axis=1), opset=version
    )
register("split-13-equal", lambda n, x: n.add("Mul", *split(n, x, None)), opset=13)
register(
    "split-18-uneven", lambda n, x: n.add("Concat", *split(n, x, None, num_outputs=2, axis=2)[::-1], axis=2), opset=18
)
register("split-rows", lambda n, x: n.add("Sub", *split(n, x, None, ints(n, 3, 3, 1), axis=-2, parts=3)[:2]))

register("pad-9", lambda n, x: n.add("Pad", x, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5), opset=9)
for version in (11, 13, 18, NEWEST):
    register(f"pad-{version}", lambda n, x: n.add("Pad", x, ints(n, 0, 1, 1, 2, 0, 2, 3, 0)), opset=version)
    register(
        f"pad-{version}-value",
        lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 2, 0, 0, 3, 0), scalar(n, -1.5)),
        opset=version,
    )
register("pad-18-axes", lambda n, x: n.add("Pad", x, ints(n, 1, 2, 3, 4), "", ints(n, 3, -2)), opset=18)
register("pad-reflect", lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"))
register("pad-edge", lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 2, 0, 0, 3, 0), mode="edge"))
register("pad-reflect-channels", lambda n, x: n.add("Pad", x, ints(n, 0, 1, 0, 0, 0, 1, 0, 0), mode="reflect"))
register("pad-wrap", lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 0, 0, 0, 1, 0), mode="wrap"), opset=19)
register("pad-negative", lambda n, x: n.add("Pad", x, ints(n, 0, 0, -1, 2, 0, 0, 0, -1)))
register("pad-batch", lambda n, x: n.add("Pad", x, ints(n, 1, 0, 0, 0, 0, 0, 0, 0)))
register("pad-rank-3", lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 0, 0, 2)), (2, 3, 4))

register("dropout-9", lambda n, x: n.add("Dropout", x, ratio=0.3), opset=9)
register("dropout-12", lambda n, x: n.add("Dropout", x, scalar(n, 0.3)), opset=12)
register("dropout-13-false", lambda n, x: n.add("Dropout", x, scalar(n, 0.3), n.constant(np.array(False))), opset=13)
register("upsample-9", lambda n, x: n.add("Upsample", x, floats(n, 1, 1, 2, 3)), opset=9)
register("upsample-9-linear", lambda n, x: n.add("Upsample", x, floats(n, 1, 1, 2, 2), mode="linear"), opset=9)
register("resize-10", lambda n, x: n.add("Resize", x, floats(n, 1, 1, 2, 1.5)), opset=10)
register("resize-10-linear", lambda n, x: n.add("Resize", x, floats(n, 1, 1, 2, 2), mode="linear"), opset=10)
for version in (11, 13, 19):
    roi = {11: floats}.get(version, lambda n: "")
    register(f"resize-{version}", lambda n, x, r=roi: n.add("Resize", x, r(n), floats(n, 1, 1, 2, 2)), opset=version)
    register(
        f"resize-{version}-sizes",
        lambda n, x, r=roi: n.add(
            "Resize", x, r(n), floats(n) if r is floats else "", ints(n, 1, 6, 10, 5), mode="linear"
        ),
        opset=version,
    )
    for how in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
        register(
            f"resize-{version}-{how}",
            lambda n, x, r=roi, h=how: n.add(
                "Resize", x, r(n), floats(n, 1, 1, 1.7, 0.6), mode="linear", coordinate_transformation_mode=h
            ),
            opset=version,
        )
for how in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
    register(
        f"resize-{how}",
        lambda n, x, h=how: n.add(
            "Resize", x, "", floats(n, 1, 1, 1.5, 2.5), nearest_mode=h, coordinate_transformation_mode="asymmetric"
        ),
    )
register("resize-cubic", lambda n, x: n.add("Resize", x, "", floats(n, 1, 1, 2, 2), mode="cubic"))
register("resize-channels", lambda n, x: n.add("Resize", x, "", floats(n, 1, 2, 1, 1)))


def weighted(op: str, *shape: int, bias: int = 0, **attrs: Any) -> Build:
    """A node of `op` with a weight, and a bias of so many values."""
    return lambda n, x: n.add(op, x, n.weight(*shape), *([n.weight(bias, zeros=0)] if bias else []), **attrs)


CONVS: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
    "plain": ((4, 6, 3, 3), {}),
    "bias": ((4, 6, 3, 3), {"bias": 4, "pads": [1, 1, 1, 1]}),
    "uneven-pads": ((4, 6, 3, 2), {"pads": [0, 1, 2, 3]}),
    "same-upper": ((4, 6, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same-lower": ((4, 6, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "valid": ((4, 6, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    "dilated": ((4, 6, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 1, 3]}),
    "dilated-strided": ((4, 6, 3, 3), {"dilations": [2, 1], "strides": [3, 2], "pads": [2, 1, 2, 1]}),
    "grouped": ((4, 3, 3, 3), {"group": 2, "bias": 4}),
    "grouped-strided": ((9, 2, 3, 3), {"group": 3, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise": ((6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1], "bias": 6}),
    "depthwise-strided": ((6, 1, 5, 5), {"group": 6, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "depthwise-times-two": ((12, 1, 3, 3), {"group": 6}),
    "pointwise": ((5, 6, 1, 1), {"bias": 5}),
    "pointwise-strided": ((5, 6, 1, 1), {"strides": [3, 2]}),
    "pointwise-padded": ((5, 6, 1, 1), {"pads": [1, 2, 0, 1], "bias": 5}),
    "kernel-of-the-image": ((8, 6, 7, 9), {"bias": 8}),
    "stride-beyond-kernel": ((3, 6, 2, 2), {"strides": [4, 5]}),
    "row-kernel": ((3, 6, 1, 7), {"pads": [0, 3, 0, 3]}),
    "column-kernel": ((3, 6, 5, 1), {"pads": [2, 0, 2, 0]}),
    "pads-beyond-kernel": ((3, 6, 2, 2), {"pads": [3, 3, 3, 3]}),
}
for name, (shape, attrs) in CONVS.items():
    register(f"conv-{name}", weighted("Conv", *shape, **attrs))
register("conv-batch-3", weighted("Conv", 5, 6, 3, 3, bias=5, pads=[1] * 4), (3, 6, 7, 9))
register("conv-tiny", weighted("Conv", 1, 1, 1, 1), (1, 1, 1, 1))
for name, kind in {
    "plain": {},
    "strided": {"strides": [2], "pads": [1, 2]},
    "dilated": {"dilations": [3]},
    "same": {"auto_pad": "SAME_LOWER"},
    "grouped": {"group": 2},
}.items():
    register(f"conv-1d-{name}", weighted("Conv", 4, 6 // kind.get("group", 1), 3, bias=4, **kind), (2, 6, 11))
register("conv-3d", weighted("Conv", 2, 3, 2, 2, 2), (1, 3, 4, 4, 4))

TRANSPOSED: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
    "plain": ((6, 4, 3, 3), {"bias": 4}),
    "strided": ((6, 4, 3, 3), {"strides": [2, 3], "bias": 4}),
    "output-padding": ((6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    "output-shape": ((6, 4, 3, 3), {"strides": [2, 2], "output_shape": [14, 18]}),
    "output-shape-larger": ((6, 4, 2, 2), {"strides": [2, 2], "output_shape": [15, 19], "output_padding": [1, 1]}),
    "same-upper": ((6, 4, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same-lower": ((6, 4, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((6, 4, 3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
    "grouped": ((6, 2, 3, 3), {"group": 3, "strides": [2, 1], "bias": 6}),
    "depthwise": ((6, 1, 4, 4), {"group": 6, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated": ((6, 4, 3, 3), {"dilations": [2, 1], "bias": 4}),
    "dilated-strided": ((6, 4, 3, 3), {"dilations": [2, 2], "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "stride-beyond-kernel": ((6, 4, 2, 2), {"strides": [3, 4]}),
    "pointwise": ((6, 4, 1, 1), {}),
}
for name, (shape, attrs) in TRANSPOSED.items():
    register(f"conv-transpose-{name}", weighted("ConvTranspose", *shape, **attrs))
register("conv-transpose-1d", weighted("ConvTranspose", 6, 4, 3, strides=[2], output_padding=[1], bias=4), (2, 6, 5))

POOLS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_shape": [2, 3]},
    "strided": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "ceil": {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1},
    "ceil-padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    "ceil-beyond": {"kernel_shape": [2, 2], "strides": [3, 5], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    "same-upper": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same-lower": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    "valid": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"},
    "uneven": {"kernel_shape": [4, 3], "pads": [0, 2, 3, 1]},
    "of-the-image": {"kernel_shape": [7, 9]},
}
for name, kind in POOLS.items():
    register(f"max-pool-{name}", lambda n, x, k=kind: n.add("MaxPool", x, **k))
    register(f"average-pool-{name}", lambda n, x, k=kind: n.add("AveragePool", x, **k))
    if not name.startswith("same"):
        register(
            f"average-pool-{name}-counted",
            lambda n, x, k=kind: n.add("AveragePool", x, count_include_pad=1, **k),
            opset=19,
        )
register("max-pool-dilated", lambda n, x: n.add("MaxPool", x, kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 1, 0, 0]))
register("max-pool-1d", lambda n, x: n.add("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 0]), (2, 3, 8))
register("average-pool-1d", lambda n, x: n.add("AveragePool", x, kernel_shape=[3], strides=[2], pads=[1, 0]), (2, 3, 8))
register("average-pool-dilated", lambda n, x: n.add("AveragePool", x, kernel_shape=[2, 2], dilations=[2, 2]), opset=19)
register("global-pool", lambda n, x: n.add("Sub", n.add("GlobalMaxPool", x), n.add("GlobalAveragePool", x)))
register("global-pool-1d", lambda n, x: n.add("GlobalAveragePool", x), (2, 3, 8))
register(
    "max-pool-of-negatives",
    lambda n, x: n.add("MaxPool", n.add("Neg", n.add("Exp", x)), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
)
for name, kind in {
    "kernel-of-one": {"kernel_shape": [1, 1], "strides": [2, 2]},
    "one-axis-beyond": {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 0]},
    "valid": {"kernel_shape": [1, 2], "strides": [4, 3], "auto_pad": "VALID"},
}.items():
    for op in ("MaxPool", "AveragePool"):
        for version in (10, 17, 22):
            register(
                f"ceil-{name}-{op}-{version}",
                lambda n, x, o=op, k=kind: n.add(o, x, ceil_mode=1, **k),
                (1, 6, 8, 8),
                version,
            )
register(
    "ceil-twice-beyond",
    lambda n, x: n.add(
        "MaxPool",
        n.add("AveragePool", x, kernel_shape=[2, 2], strides=[3, 5], pads=[1] * 4, ceil_mode=1),
        kernel_shape=[1, 1],
        strides=[2, 3],
        ceil_mode=1,
    ),
)


def columns(net: Net, x: str) -> str:
    """Rows of zeros above and below, none at the sides: planes without gaps, whose last vector isn't full."""
    return net.add(
        "Conv", net.add("Conv", x, net.weight(5, 6, 1, 1), positive(net, 5)), net.weight(4, 5, 3, 1), pads=[1, 0, 1, 0]
    )


for shape in ((1, 6, 1, 2), (2, 6, 3, 5), (1, 6, 7, 9)):
    register(f"column-kernel-after-a-bias-{shape[3]}", columns, shape)
for name, (places, axis) in {"one": (3, 1), "last": (-1, 3), "row": ([[1, 3, 5]], 1), "all": ([-2, -1], 2)}.items():
    register(f"gather-{name}", lambda n, x, p=places, a=axis: n.add("Gather", x, n.constant(np.array(p)), axis=a))
MODELS |= {f"recurrent-{name}": lambda c=case: c.build()[0] for name, case in RECURRENT.items()}
