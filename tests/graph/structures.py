"""Models whose structure, rather than an operator, is the trouble: what is constant, shared, an output, not float32."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.graph.models import batch_norm, floats, ints, scalar
from tests.runtime.networks import Net

STRUCTURES: dict[str, Callable[[], onnx.ModelProto]] = {}
Model = Callable[[], onnx.ModelProto]


def structure(make: Model) -> Model:
    """Add to the list."""
    STRUCTURES[make.__name__] = make
    return make


def info(name: str, shape: Sequence[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A port of a model."""
    return helper.make_tensor_value_info(name, kind, shape)


def constant(net: Net, array: NDArray[Any]) -> str:
    """A Constant node; its output."""
    return net.add("Constant", value=numpy_helper.from_array(array))


@structure
def constant_nodes() -> onnx.ModelProto:
    """Weights made by Constant nodes, as older exporters write them, and one that another node makes."""
    net = Net({"x": (1, 3, 6, 6)})
    rng = np.random.default_rng(0)
    weight = constant(net, rng.standard_normal((4, 3, 3, 3), np.float32))
    bias = net.add("Mul", constant(net, rng.standard_normal(4, np.float32)), constant(net, np.float32(2).reshape(())))
    return net.model(net.add("Conv", "x", weight, bias), opset=11)


@structure
def constant_values() -> onnx.ModelProto:
    """Constant nodes by value_float, value_ints and ConstantOfShape."""
    net = Net({"x": (1, 3, 6, 6)})
    bound = net.add("Constant", value_float=0.25)
    shape = net.add("Constant", value_ints=[1, 3, 1, 1])
    filled = net.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([1.5], np.float32)))
    return net.model(net.add("Mul", net.add("Clip", "x", "", bound), filled))


@structure
def initializers_as_inputs() -> onnx.ModelProto:
    """IR version 3: initialisers are listed among the inputs."""
    net = Net({"x": (1, 3, 6, 6)})
    model = net.model(net.conv("x", 4, 3), opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(info(tensor.name, tensor.dims))
    return model


@structure
def output_is_input() -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    return net.model(net.conv("x", 4, 3), "x")


@structure
def output_is_identity_of_input() -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    return net.model(net.add("Identity", "x"), net.add("Identity", net.conv("x", 4, 3)))


@structure
def output_is_constant() -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    return net.model(net.conv("x", 4, 3), floats(net, 1, 2, 3))


@structure
def output_is_computed_constant() -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    return net.model(net.add("Add", floats(net, 1, 2, 3), floats(net, 5)), net.conv("x", 4, 3))


@structure
def output_twice_read() -> onnx.ModelProto:
    """Every value in the middle is an output too, so nothing may be fused."""
    net = Net({"x": (1, 4, 6, 6)})
    conv = net.conv("x", 4, 4)
    normal = batch_norm(net, conv, 4)
    total = net.add("Add", normal, "x")
    return net.model(net.add("Relu", total), total, normal, conv)


@structure
def shared_weight() -> onnx.ModelProto:
    """One initialiser in two convolutions, of which one is followed by BatchNormalization, and in an addition."""
    net = Net({"x": (1, 4, 6, 6)})
    weight, bias = net.weight(4, 4, 1, 1), net.weight(4, zeros=0)
    one = batch_norm(net, net.add("Conv", "x", weight, bias), 4)
    two = net.add("Conv", one, weight, bias)
    return net.model(net.add("Add", net.add("Reshape", two, ints(net, 1, 36, 4)), bias))


@structure
def shared_matrix() -> onnx.ModelProto:
    """One matrix as it is, transposed, and scaled."""
    net = Net({"x": (3, 5)})
    matrix = net.weight(5, 5)
    first = net.add("Gemm", "x", matrix, transB=1, alpha=0.5)
    return net.model(net.add("MatMul", net.add("Gemm", first, matrix, floats(net, 1, 2, 3, 4, 5), beta=2.0), matrix))


@structure
def names_that_passes_might_make() -> onnx.ModelProto:
    """Values and weights called what a pass would call the ones it makes."""
    net = Net({"x": (1, 4, 6, 6)})
    weights = [net.weight(4, 4, 1, 1), net.weight(4, 4, 1, 1), net.weight(4, zeros=0)]
    for tensor, name in zip(net.weights, ("first.weight", "layer.weight", "layer.bias"), strict=True):
        tensor.name = name
    assert len(weights) == 3
    net.nodes.append(helper.make_node("Conv", ["x", "first.weight"], ["made"], name="first"))
    statistics = [net.weight(4), net.weight(4), net.weight(4), floats(net, 1, 2, 3, 4)]
    net.nodes.append(helper.make_node("BatchNormalization", ["made", *statistics], ["layer"], name="bn"))
    net.nodes.append(helper.make_node("Conv", ["layer", "layer.weight", "layer.bias"], ["layer.in"], name="second"))
    net.nodes.append(helper.make_node("Reshape", ["layer.in", ints(net, 1, 4, 36)], ["layer.out"], name="flat"))
    net.nodes.append(helper.make_node("MaxPool", ["layer.out"], ["layer.1"], name="pool", kernel_shape=[2]))
    return net.model("layer.1", "layer.out")


@structure
def names_of_helpers() -> onnx.ModelProto:
    """A 1-D pool whose helper values' names are taken."""
    net = Net({"x": (1, 4, 9)})
    net.nodes.append(helper.make_node("Neg", ["x"], ["y.in"], name="neg"))
    net.nodes.append(helper.make_node("MaxPool", ["y.in"], ["y"], name="pool", kernel_shape=[2]))
    net.nodes.append(helper.make_node("Softmax", ["y.in"], ["y.out"], name="soft", axis=1))
    return net.model("y", "y.out", "y.in", opset=11)


@structure
def nodes_without_names() -> onnx.ModelProto:
    net = Net({"x": (1, 4, 6, 6)})
    out = net.conv(net.add("LRN", net.conv("x", 4, 4), size=3), 4, 4)
    for node in net.nodes:
        node.name = ""
    return net.model(out)


@structure
def unused_nodes() -> onnx.ModelProto:
    """Nodes and an input that lead nowhere."""
    net = Net({"x": (1, 4, 6, 6), "unused": (1, 2)})
    net.add("Relu", net.conv("x", 4, 4))
    return net.model(net.conv("x", 4, 4))


@structure
def shape_arithmetic() -> onnx.ModelProto:
    """A flattening written with Shape, Gather, Unsqueeze and Concat, as torch exports view(x.size(0), -1)."""
    net = Net({"x": (2, 3, 6, 6)})
    made = net.conv("x", 4, 3)
    size = net.add("Gather", net.add("Shape", made), net.constant(np.array(0)), axis=0)
    shape = net.add("Concat", net.add("Unsqueeze", size, ints(net, 0)), ints(net, -1), axis=0)
    return net.model(net.add("MatMul", net.add("Reshape", made, shape), net.weight(144, 5)))


@structure
def sizes_computed() -> onnx.ModelProto:
    """A Resize to twice the size found by Shape, Slice, Cast and Mul, and a Slice whose end is computed."""
    net = Net({"x": (1, 3, 5, 6)})
    size = net.add("Cast", net.add("Slice", net.add("Shape", "x"), ints(net, 2), ints(net, 4)), to=TensorProto.FLOAT)
    twice = net.add("Cast", net.add("Floor", net.add("Mul", size, floats(net, 2, 1.5))), to=TensorProto.INT64)
    lead = net.add("Slice", net.add("Shape", "x"), ints(net, 0), ints(net, 2))
    big = net.add("Resize", "x", "", "", net.add("Concat", lead, twice, axis=0), mode="nearest")
    end = net.add("Div", net.add("Slice", net.add("Shape", big), ints(net, 3), ints(net, 4)), ints(net, 2))
    return net.model(net.add("Slice", big, ints(net, 0), end, ints(net, 3)))


@structure
def pad_computed() -> onnx.ModelProto:
    """Pads built as torch exports them: ConstantOfShape, Concat, Reshape, Slice backwards, Transpose, Cast."""
    net = Net({"x": (1, 3, 5, 6)})
    zeros = net.add("ConstantOfShape", ints(net, 4), value=numpy_helper.from_array(np.array([0], np.int64)))
    both = net.add("Reshape", net.add("Concat", ints(net, 1, 2, 3, 0), zeros, axis=0), ints(net, -1, 2))
    turned = net.add(
        "Transpose",
        net.add("Slice", both, ints(net, -1), ints(net, -(2**60)), ints(net, 0), ints(net, -1)),
        perm=[1, 0],
    )
    pads = net.add("Cast", net.add("Reshape", turned, ints(net, -1)), to=TensorProto.INT64)
    return net.model(net.conv(net.add("Pad", "x", pads, scalar(net, 0.0)), 4, 3))


def branch(name: str, op: str, *inputs: str) -> onnx.GraphProto:
    """A subgraph of one node, which reads values from outside."""
    return helper.make_graph([helper.make_node(op, list(inputs), [name])], name, [], [info(name, None)])


@structure
def if_that_flows() -> onnx.ModelProto:
    """A condition that depends on the input, and branches that read values and weights from outside."""
    net = Net({"x": (1, 3, 6, 6)})
    made, weight = net.conv("x", 4, 3), net.weight(4, 1, 1)
    condition = net.add("Greater", net.add("ReduceMean", "x", keepdims=0), scalar(net, 0.0))
    chosen = net.add(
        "If",
        condition,
        then_branch=branch("then", "Mul", made, weight),
        else_branch=branch("else", "Add", made, weight),
    )
    return net.model(net.add("Relu", net.conv(net.add("Reshape", chosen, ints(net, 1, 4, 6, 6)), 3, 4)))


@structure
def if_that_is_constant() -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    made = net.conv("x", 4, 3)
    chosen = net.add(
        "If",
        net.constant(np.array(True)),
        then_branch=branch("then", "Relu", made),
        else_branch=branch("else", "Neg", made),
    )
    return net.model(net.conv(chosen, 3, 4))


@structure
def loop() -> onnx.ModelProto:
    """x = relu(x * 1.5 - y), three times, y made by a convolution outside."""
    net = Net({"x": (1, 3, 6, 6)})
    outside = net.conv("x", 3, 3)
    factor = scalar(net, 1.5)
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["carried", factor], ["scaled"]),
            helper.make_node("Sub", ["scaled", outside], ["less"]),
            helper.make_node("Relu", ["less"], ["next"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("carried", [1, 3, 6, 6])],
        [info("still", [], TensorProto.BOOL), info("next", [1, 3, 6, 6])],
    )
    out = net.add("Loop", net.constant(np.array(3)), net.constant(np.array(True)), net.add("Relu", "x"), body=body)
    return net.model(net.conv(out, 3, 3))


@structure
def partitions_interleaved() -> onnx.ModelProto:
    """Three parts that aren't compiled, read across each other, one of them on a side branch."""
    net = Net({"x": (1, 4, 8, 8)})
    one = net.add("LRN", net.conv("x", 4, 4), size=3)
    two = net.add("Sin", net.add("Relu", net.conv(one, 4, 4)))
    three = net.add("Cos", net.add("Ceil", net.add("Mul", net.conv(net.add("Add", one, two), 4, 4), scalar(net, 3))))
    total = net.add("Add", net.add("Concat", net.conv(three, 4, 4), two, axis=1), net.add("Concat", one, three, axis=1))
    return net.model(net.conv(total, 3, 8), two)


@structure
def residual_from_a_partition() -> onnx.ModelProto:
    """What is added to a convolution comes out of onnxruntime, or straight from an input."""
    net = Net({"x": (1, 4, 8, 8)})
    odd = net.add("Round", "x")
    one = net.add("Relu", net.add("Add", net.conv("x", 4, 4), odd))
    return net.model(net.add("Relu", net.add("Add", "x", net.conv(one, 4, 4))))


@structure
def integers_between() -> onnx.ModelProto:
    """ArgMax, Cast and Gather: values that aren't float32 between parts that are."""
    net = Net({"x": (1, 4, 6, 6)})
    best = net.add("ArgMax", net.conv("x", 4, 4), axis=1)
    table = net.weight(4, 3)
    gathered = net.add("Reshape", net.add("Gather", table, best), ints(net, 1, 6, 6, 3))
    back = net.conv(net.add("Transpose", gathered, perm=[0, 3, 1, 2]), 4, 3)
    return net.model(back, net.add("Cast", best, to=TensorProto.FLOAT))


@structure
def scalars() -> onnx.ModelProto:
    """Values of rank 0."""
    net = Net({"x": (1, 4, 6, 6)})
    mean = net.add("ReduceMean", net.conv("x", 4, 4), keepdims=0)
    return net.model(net.add("Mul", "x", net.add("Sigmoid", mean)), mean)


@structure
def broadcasts() -> onnx.ModelProto:
    """Binary operators between values of several ranks and shapes."""
    net = Net({"x": (2, 4, 5, 6), "y": (4, 1, 6), "z": (1, 1, 5, 1)})
    wide = net.add("Add", net.add("Mul", "x", "y"), "z")
    gate = net.add("Sigmoid", net.add("GlobalAveragePool", "x"))
    both = net.add("Div", net.add("Sub", "z", "y"), scalar(net, 3.0))
    return net.model(net.add("Max", net.add("Mul", gate, wide), "y"), both)


@structure
def constants_on_the_left() -> onnx.ModelProto:
    net = Net({"x": (2, 4, 5, 6)})
    constants = [
        net.weight(4, 1, 1, zeros=0),
        net.weight(1, 4, 1, 1, zeros=0),
        scalar(net, 2.0),
        net.weight(5, 6, zeros=0),
    ]
    out = "x"
    for op, c in zip(("Sub", "Mul", "Add", "Sub"), constants, strict=True):
        out = net.add(op, c, out)
    return net.model(net.add("Div", scalar(net, 1.0), net.add("Add", net.add("Abs", out), scalar(net, 1.0))))


@structure
def constants_that_enlarge() -> onnx.ModelProto:
    """A constant with more axes, or larger ones, than what flows."""
    net = Net({"x": (4, 1, 6)})
    big = net.add("Add", net.add("Mul", "x", net.weight(1, 5, 1, zeros=0)), net.weight(2, 4, 5, 6, zeros=0))
    return net.model(big, net.add("Mul", "x", net.weight(1, 1, 1, 1, zeros=0)))


@structure
def attention() -> onnx.ModelProto:
    """Products of two values that flow, softmax, layer normalisation: partly compiled."""
    net = Net({"x": (2, 5, 8)})
    q, k, v = (net.add("Add", net.add("MatMul", "x", net.weight(8, 8)), net.weight(8, zeros=0)) for _ in range(3))
    scores = net.add("Softmax", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1])), axis=-1)
    mixed = net.add("Add", "x", net.add("MatMul", net.add("MatMul", scores, v), net.weight(8, 8)))
    mean = net.add("ReduceMean", mixed, axes=[-1])
    less = net.add("Sub", mixed, mean)
    deviation = net.add(
        "Sqrt",
        net.add("Add", net.add("ReduceMean", net.add("Pow", less, scalar(net, 2.0)), axes=[-1]), scalar(net, 1e-5)),
    )
    return net.model(net.add("Mul", net.add("Div", less, deviation), net.weight(8, zeros=0)))


@structure
def function_of_its_own() -> onnx.ModelProto:
    """A function of the model's own."""
    net = Net({"x": (1, 4, 6, 6)})
    net.nodes.append(helper.make_node("Twice", ["x"], ["t0"], name="twice", domain="local"))
    model = net.model(net.conv("t0", 4, 4))
    body = [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def typed(kind: int) -> onnx.ModelProto:
    """A network of another type from end to end, with float32 in the middle."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    net = Net({"x": (1, 3, 6, 6)})
    weight = net.constant(np.random.default_rng(0).standard_normal((6, 6)).astype(dtype))
    out = net.add("Relu", net.add("MatMul", "x", weight))
    inner = net.conv(net.add("Cast", out, to=TensorProto.FLOAT), 4, 3)
    model = net.model(net.add("Cast", inner, to=kind))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = kind
    return model


STRUCTURES["float16"] = lambda: typed(TensorProto.FLOAT16)
STRUCTURES["double"] = lambda: typed(TensorProto.DOUBLE)


@structure
def concatenations_that_share() -> onnx.ModelProto:
    """A value in two concatenations, of which only the outer one can hold it, and one that is in there twice."""
    net = Net({"x": (1, 2, 3, 5)})
    made = net.add("Relu", net.conv("x", 2, 2))
    partly = net.add("Concat", net.add("Concat", made, "x", axis=1), made, axis=1)
    again = net.add("Neg", made)
    twice = net.add("Concat", net.add("Concat", again, again, axis=1), again, axis=1)
    return net.model(net.conv(partly, 3, 6), net.conv(twice, 3, 6))


@structure
def one_row_with_padding() -> onnx.ModelProto:
    """A single row of a single channel, behind which a reader expects zeros."""
    net = Net({"x": (1, 1, 1, 2)})
    weight = net.constant(np.array([0.5, -0.5], np.float32).reshape(1, 1, 2, 1))
    return net.model(net.add("ConvTranspose", net.add("Abs", "x"), weight, strides=[2, 1], output_padding=[1, 0]))


@structure
def vector_as_one_row() -> onnx.ModelProto:
    """A vector that fills cache lines, read as a row of one channel with zeros behind that aren't there."""
    net = Net({"x": (1, 5)})
    hidden = [net.add("Gemm", "x", net.weight(5, 16, zeros=0), net.weight(16, zeros=0)) for _ in range(3)]
    made = []
    for vector in hidden:
        row = net.add("Reshape", vector, ints(net, 1, 1, 1, 16))
        made.append(net.add("Conv", row, net.weight(2, 1, 1, 2, zeros=0), pads=[0, 0, 0, 1]))
    return net.model(*made, *hidden)


@structure
def dropout_with_a_mask() -> onnx.ModelProto:
    """At inference the mask keeps everything."""
    net = Net({"x": (1, 2, 3, 5)})
    out = net.add("Dropout", net.conv("x", 2, 2))
    net.nodes[-1].output.append("mask")
    return net.model(net.add("Mul", out, net.add("Cast", "mask", to=TensorProto.FLOAT)), out)
