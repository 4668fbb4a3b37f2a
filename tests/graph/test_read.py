"""Models read and compiled give what onnxruntime gives."""

import functools

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from prunus.compiler.compile import compile
from prunus.errors import UnsupportedError
from prunus.graph.evaluate import evaluate
from prunus.graph.fuse import fuse
from prunus.graph.ir import verify
from prunus.graph.read import read
from tests.graph.models import MODELS
from tests.graph.structures import STRUCTURES
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run

Arrays = list[NDArray[np.float32]]


@functools.cache
def case(name: str) -> tuple[onnx.ModelProto, dict[str, NDArray[np.float32]], Arrays]:
    """A model, inputs, and onnxruntime's answer."""
    model = MODELS[name]()
    feeds = feeds_for(model, seed=3)
    return model, feeds, onnxruntime_run(model, feeds)


@pytest.mark.parametrize("name", MODELS)
def test_read(name: str) -> None:
    model, feeds, expected = case(name)
    graph = read(model)
    verify(graph)
    assert fuse(graph).nodes == graph.nodes, "one round of passes is enough"
    values = evaluate(graph, feeds)
    assert_agrees([values[output] for output in graph.outputs], expected)


@pytest.mark.parametrize("name", MODELS)
def test_compile(name: str) -> None:
    model, feeds, expected = case(name)
    session = compile(model, tune="off", threads=1)
    assert_agrees(session.run(None, feeds), expected)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op for node in read(model).nodes]


def test_neighbours_share_a_partition() -> None:
    """Refused nodes in a row are one part; those with compiled ones between are several."""
    assert kinds(STRUCTURES["partitions_interleaved"]()).count("onnxruntime") == 3
    net = Net({"x": (1, 4, 8, 8)})
    odd = net.add("Cos", net.add("Sin", net.conv("x", 4, 4)))
    assert kinds(net.model(net.conv(odd, 4, 4))) == ["conv", "onnxruntime", "conv"]


def test_partitions_hold_what_they_need_only() -> None:
    """A part's weights are inside; the rest of the model isn't."""
    net = Net({"x": (1, 4, 8, 8)})
    made = net.conv("x", 4, 4)
    odd = net.add("LRN", net.add("Gather", made, net.constant(np.array([2, 0])), axis=1), size=3)
    (node,) = [node for node in read(net.model(net.conv(odd, 3, 2))).nodes if node.op == "onnxruntime"]
    part = onnx.load_from_string(node.attrs["model"])
    assert [n.op_type for n in part.graph.node] == ["Gather", "LRN"]
    assert [v.name for v in part.graph.input] == list(node.inputs) == [made]
    assert [v.name for v in part.graph.output] == list(node.outputs) == [odd]
    assert len(part.graph.initializer) == 1


@pytest.mark.parametrize(
    "name",
    ["if_that_is_constant", "shape_arithmetic", "sizes_computed", "pad_computed", "constant_nodes", "shared_weight"],
)
def test_whole_models_are_compiled(name: str) -> None:
    assert "onnxruntime" not in kinds(STRUCTURES[name]())


@pytest.mark.parametrize("moved", ["identity", "reshape"])
def test_partitions_read_what_they_know_by_name(moved: str) -> None:
    """What comes to nothing before a part is still made for it."""
    net = Net({"x": (1, 4, 8, 8)})
    same = net.add("Relu", "x")
    if moved == "identity":
        same = net.add("Sum", same)
    else:
        for shape in ((4, 64), (1, 4, 8, 8)):
            same = net.add("Reshape", same, net.constant(np.array(shape)))
    model = net.model(net.conv(net.add("LRN", same, size=3), 4, 4))
    feeds = feeds_for(model)
    graph = read(model)
    values, expected = evaluate(graph, feeds), onnxruntime_run(model, feeds)
    assert_agrees([values[name] for name in graph.outputs], expected)
    assert_agrees(compile(model, tune="off", threads=1).run(None, feeds), expected)


def test_partitions_read_rounded_values_by_name() -> None:
    """A file in QDQ form whose rounding is lifted."""
    net = Net({"x": (1, 4, 8, 8)})
    steps = net.constant(np.float32(0.05)), net.constant(np.uint8(0))
    rounded = net.add("DequantizeLinear", net.add("QuantizeLinear", net.add("Relu", "x"), *steps), *steps)
    model = net.model(net.add("LRN", rounded, size=3))
    feeds = feeds_for(model)
    graph = read(model, keep_steps=False)
    (expected,) = onnxruntime_run(model, feeds)
    assert np.abs(evaluate(graph, feeds)[graph.outputs[0]] - expected).max() < 0.03


def test_outputs_keep_their_order() -> None:
    for name in ("output_twice_read", "output_is_input", "output_is_constant"):
        model = STRUCTURES[name]()
        graph = read(model)
        assert graph.outputs == tuple(port.name for port in model.graph.output)
        assert graph.inputs == ("x",)


def test_initialisers_as_inputs_are_constants() -> None:
    graph = read(STRUCTURES["initializers_as_inputs"]())
    assert graph.inputs == ("x",) and len(graph.constants) == 2


def test_fallback_none_names_operator_and_node() -> None:
    with pytest.raises(UnsupportedError, match=r"node 'sin3': operator Sin isn't compiled") as caught:
        net = Net({"x": (1, 4, 8, 8)})
        net.add("Relu", net.add("Relu", net.add("Relu", "x")))
        read(net.model(net.add("Sin", "t2")), fallback=False)
    assert "\n" not in str(caught.value)


def test_nodes_of_one_name_run() -> None:
    """onnxruntime refuses such a model, so the answer is that of the same model with names."""
    net = Net({"x": (1, 4, 6, 6)})
    model = net.model(net.conv(net.add("Sin", net.add("Relu", net.conv("x", 4, 4))), 4, 4))
    feeds = feeds_for(model)
    expected = onnxruntime_run(model, feeds)
    for node in model.graph.node:
        node.name = "layer"
    assert_agrees(compile(model, tune="off", threads=1).run(None, feeds), expected)


def test_input_types() -> None:
    """Ports keep the types of the file."""
    graph = read(STRUCTURES["float16"]())
    assert graph.values["x"].dtype == "float16"
    assert graph.values[graph.outputs[0]].dtype == "float16"
