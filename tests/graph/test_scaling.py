"""A graph says that its batch may change only where it then gives, at any batch, what onnxruntime gives."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from prunus.compiler.compile import compile
from prunus.graph.read import read
from tests.graph.models import batch_norm, ints, scalar, split
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run

Build = Callable[[Net, str], str]
IMAGE = ("N", 4, 6, 5)


def model(build: Build, shape: tuple[int | str, ...] = IMAGE, opset: int = 17) -> onnx.ModelProto:
    net = Net({"x": shape})
    return net.model(build(net, "x"), opset=opset)


def view(net: Net, x: str, *sizes: int) -> str:
    return net.add("Reshape", x, ints(net, *sizes))


def flattened(net: Net, x: str) -> str:
    """x.view(x.size(0), -1), as torch exports it."""
    size = net.add("Unsqueeze", net.add("Gather", net.add("Shape", x), net.constant(np.array(0)), axis=0), ints(net, 0))
    return net.add("Reshape", x, net.add("Concat", size, ints(net, -1), axis=0))


SCALE: dict[str, tuple[Build, int]] = {
    "convolution": (lambda n, x: n.add("Relu", n.conv(x, 3, 4)), 17),
    "normalised": (lambda n, x: batch_norm(n, x, 4), 17),
    "pooled": (lambda n, x: n.add("GlobalAveragePool", n.add("MaxPool", x, kernel_shape=[2, 2])), 17),
    "flatten": (lambda n, x: n.add("Flatten", x), 17),
    "reshape to -1 first": (lambda n, x: view(n, x, -1, 30), 17),
    "reshape that keeps axis 0": (lambda n, x: view(n, x, 0, -1), 17),
    "reshape by computed size": (flattened, 17),
    "classifier": (lambda n, x: n.add("Gemm", flattened(n, x), n.weight(120, 3), n.weight(3)), 17),
    "softmax": (lambda n, x: n.add("Softmax", x, axis=1), 17),
    "softmax before opset 13": (lambda n, x: n.add("Softmax", x, axis=1), 11),
    "softmax over the width before opset 13": (lambda n, x: n.add("Softmax", x, axis=3), 11),
    "mean": (lambda n, x: n.add("ReduceMean", x, axes=[2, 3]), 17),
    "transpose": (lambda n, x: n.add("Transpose", x, perm=[0, 2, 3, 1]), 17),
    "slice of channels": (lambda n, x: n.add("Slice", x, ints(n, 1), ints(n, 3), ints(n, 1)), 17),
    "slice that keeps all": (lambda n, x: n.add("Slice", x, ints(n, 0), ints(n, 2**40), ints(n, 0)), 17),
    "split of channels": (lambda n, x: n.add("Add", *split(n, x, None)), 13),
    "concat": (lambda n, x: n.add("Concat", x, n.add("Neg", x), axis=1), 17),
    "constant per channel": (lambda n, x: n.add("Mul", x, n.weight(4, 1, 1)), 17),
    "constant per pixel": (lambda n, x: n.add("Add", x, n.weight(1, 1, 6, 5)), 17),
    "pad": (lambda n, x: n.add("Pad", x, ints(n, 0, 0, 1, 1, 0, 0, 1, 1)), 17),
    "resize": (lambda n, x: n.add("Resize", x, "", n.constant(np.float32([1, 1, 2, 2]))), 17),
    "gate": (lambda n, x: n.add("Mul", x, n.add("Sigmoid", n.add("GlobalAveragePool", x))), 17),
    "channel shuffle": (
        lambda n, x: view(n, n.add("Transpose", view(n, x, -1, 2, 2, 6, 5), perm=[0, 2, 1, 3, 4]), -1, 4, 6, 5),
        17,
    ),
}
DONT: dict[str, tuple[Build, int]] = {
    "mean over the batch": (lambda n, x: n.add("ReduceMean", x, axes=[0]), 17),
    "mean of all": (lambda n, x: n.add("ReduceMean", x, keepdims=0), 17),
    "mean of all, axes kept": (lambda n, x: n.add("ReduceMean", x), 17),
    "softmax over the batch": (lambda n, x: n.add("Softmax", x, axis=0), 17),
    "softmax over all, before opset 13": (lambda n, x: n.add("Softmax", x, axis=0), 11),
    "transpose of the batch": (lambda n, x: n.add("Transpose", x, perm=[1, 0, 2, 3]), 17),
    "concat along the batch": (lambda n, x: n.add("Concat", x, x, axis=0), 17),
    "slice of the batch": (lambda n, x: n.add("Slice", x, ints(n, 0), ints(n, 1), ints(n, 0)), 17),
    "slice of the batch from its end": (lambda n, x: n.add("Slice", x, ints(n, -1), ints(n, 2**40), ints(n, 0)), 17),
    "pad of the batch": (lambda n, x: n.add("Pad", x, ints(n, 1, 0, 0, 0, 0, 0, 0, 0)), 17),
    "reshape that moves the batch": (lambda n, x: view(n, x, 4, -1), 17),
    "reshape to one row": (lambda n, x: view(n, x, 1, -1), 17),
    "reshape to a vector of all": (lambda n, x: n.add("Mul", view(n, x, 1, -1), scalar(n, 2.0)), 17),
    "flatten of all": (lambda n, x: n.add("Flatten", x, axis=0), 17),
    "unsqueeze in front": (lambda n, x: n.add("Unsqueeze", x, ints(n, 0)), 17),
    "partition": (lambda n, x: n.conv(n.add("LRN", x, size=3), 3, 4), 17),
    "batch size as a number": (
        lambda n, x: n.add("Div", x, n.add("Cast", n.add("Slice", n.add("Shape", x), ints(n, 0), ints(n, 1)), to=1)),
        17,
    ),
}
EVERY = SCALE | DONT


@pytest.mark.parametrize("name", SCALE)
def test_batch_may_change(name: str) -> None:
    assert read(model(SCALE[name][0], opset=SCALE[name][1])).batch


@pytest.mark.parametrize("name", DONT)
def test_batch_may_not_change(name: str) -> None:
    assert not read(model(DONT[name][0], opset=DONT[name][1])).batch


@pytest.mark.parametrize("name", EVERY)
def test_any_batch_is_right(name: str) -> None:
    """Whether the plan is scaled or the model read again."""
    build, opset = EVERY[name]
    net = model(build, opset=opset)
    session = compile(net, tune="off", threads=1)
    for batch in (1, 3, 2):
        feeds = feeds_for(net, batch, seed=batch)
        assert_agrees(session.run(None, feeds), onnxruntime_run(net, feeds))


@pytest.mark.parametrize("name", EVERY)
def test_fixed_batch(name: str) -> None:
    build, opset = EVERY[name]
    fixed = model(build, (2, *IMAGE[1:]), opset)
    graph = read(fixed)
    assert not graph.batch and graph.values["x"].shape[0] == 2


def test_all_inputs_must_be_symbolic() -> None:
    def two(first: int | str, second: int | str) -> bool:
        net = Net({"a": (first, 3, 4, 4), "b": (second, 3, 4, 4)})
        return read(net.model(net.add("Add", "a", "b"))).batch

    assert two("N", "N")
    assert not two("N", 1) and not two(1, "N") and not two(1, 1)


def test_constant_with_a_batch() -> None:
    """A constant that has one entry per image."""
    assert not read(model(lambda n, x: n.add("Add", x, n.weight(1, 4, 6, 5)), (2, 4, 6, 5))).batch
    assert not read(model(lambda n, x: n.add("Add", x, n.weight(3, 4, 6, 5)))).batch
    assert not read(model(lambda n, x: n.add("Add", x, n.weight(2, 3, 4)), ("N", 4))).batch


def test_matrices_over_the_batch() -> None:
    """Without a symbolic leading dimension of its own, a vector is no batch."""
    assert read(model(lambda n, x: n.add("MatMul", x, n.weight(5, 3)), ("N", 7, 5))).batch
    assert read(model(lambda n, x: n.add("MatMul", x, n.weight(5, 3)), ("N", 5))).batch


def test_input_shapes_give_a_batch() -> None:
    net = model(lambda n, x: n.conv(x, 3, 4))
    graph = read(net, {"x": (5, 4, 6, 5)})
    assert graph.batch and graph.values["x"].shape == (5, 4, 6, 5)
    session = compile(net, tune="off", threads=1, input_shapes={"x": (5, 4, 6, 5)})
    for batch in (5, 2):
        feeds = feeds_for(net, batch)
        assert_agrees(session.run(None, feeds), onnxruntime_run(net, feeds))
