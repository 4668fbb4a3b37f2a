"""Shapes set and inferred, constants folded, leftovers gone; what can't be is said with names."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from prunus.errors import FeedError, ModelError, PrunusError, UnsupportedError
from prunus.graph.normalise import STATED, normalise
from prunus.graph.onnx_node import static_shape
from tests.graph.models import POOLS
from tests.graph.structures import STRUCTURES
from tests.runtime.networks import Dim, Net, feeds_for, onnxruntime_run

Shape = tuple[Dim, ...]


def one(shape: Shape, name: str = "x") -> onnx.ModelProto:
    net = Net({name: shape})
    return net.model(net.add("Relu", net.conv(name, 4, 3)))


def shapes(model: onnx.ModelProto, given: dict[str, tuple[int, ...]] | None = None) -> list[tuple[int, ...]]:
    """Shapes of the model's outputs."""
    return [static_shape(value) for value in normalise(model, given)[0].graph.outputs]


@pytest.mark.parametrize(
    ("shape", "given", "expected", "batch"),
    [
        ((1, 3, 8, 9), None, (1, 4, 8, 9), False),
        (("N", 3, 8, 9), None, (1, 4, 8, 9), True),
        (("N", 3, 8, 9), (5, 3, 8, 9), (5, 4, 8, 9), True),
        ((0, 3, 8, 9), None, (1, 4, 8, 9), True),
        (("N", 3, "H", "W"), (2, 3, 5, 7), (2, 4, 5, 7), True),
        ((1, 3, "H", "H"), (1, 3, 5, 7), (1, 4, 5, 7), False),
        ((2, 3, 8, 9), (1, 3, 4, 4), (1, 4, 4, 4), False),
    ],
)
def test_shapes(shape: Shape, given: tuple[int, ...] | None, expected: tuple[int, ...], batch: bool) -> None:
    model, symbolic = normalise(one(shape), None if given is None else {"x": given})
    assert [static_shape(value) for value in model.graph.outputs] == [expected]
    assert symbolic == batch


@pytest.mark.parametrize(
    ("shape", "given", "error", "facts"),
    [
        (("N", 3, "H", 9), {}, ModelError, ("'x'", "dimension 2", "(H)", "--input-shape x=N,3,N,9")),
        (("N", "C", 4, 9), {}, ModelError, ("'x'", "dimension 1", "(C)")),
        ((1, 3, 8, 9), {"y": (1, 3, 8, 9)}, FeedError, ("'y'", "x")),
        ((1, 3, 8, 9), {"x": (3, 8, 9)}, FeedError, ("x=[3, 8, 9]", "4 dimensions")),
        ((1, 3, 8, 9), {"x": (1, 3, 0, 9)}, FeedError, ("x=[1, 3, 0, 9]", "positive")),
        (("N", 3, 8, 9), {"x": (-1, 3, 8, 9)}, FeedError, ("-1", "positive")),
    ],
)
def test_shapes_that_are_refused(
    shape: Shape, given: dict[str, tuple[int, ...]], error: type[PrunusError], facts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        normalise(one(shape), given)
    assert "\n" not in str(caught.value)
    for fact in facts:
        assert fact in str(caught.value)


def test_input_without_a_shape() -> None:
    model = one((1, 3, 8, 9))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match=r"'x' has no shape"):
        normalise(model, None)
    assert shapes(model, {"x": (2, 3, 4, 5)}) == [(2, 4, 4, 5)]


def test_stale_shapes_are_inferred_anew() -> None:
    """Shapes of inner values that the file states for another size are forgotten."""
    model = one(("N", 3, 8, 9))
    model.graph.value_info.append(helper.make_tensor_value_info("t0", 1, ["N", 4, 100, 100]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("t1", 1, ["N", 4, 100, 100]))
    assert shapes(model) == [(1, 4, 8, 9)]


@pytest.mark.parametrize(
    "name", ["shape_arithmetic", "sizes_computed", "pad_computed", "constant_nodes", "constant_values"]
)
def test_constants_are_folded(name: str) -> None:
    """Nothing that computes with shapes is left."""
    left = {node.op_type for node in normalise(STRUCTURES[name](), None)[0].graph}
    assert left <= {"Conv", "MatMul", "Reshape", "Resize", "Slice", "Pad", "Clip", "Mul"}, left


def test_functions_are_inlined_and_leftovers_gone() -> None:
    model, _ = normalise(STRUCTURES["function_of_its_own"](), None)
    assert [node.op_type for node in model.graph] == ["Add", "Relu", "Conv"]
    model, _ = normalise(STRUCTURES["unused_nodes"](), None)
    assert [node.op_type for node in model.graph] == ["Conv"]


def test_constant_branch_is_chosen() -> None:
    model, _ = normalise(STRUCTURES["if_that_is_constant"](), None)
    assert "If" not in {node.op_type for node in model.graph}


def test_names_become_unique() -> None:
    """onnxruntime refuses nodes of one name; we needn't."""
    net = Net({"x": (1, 4, 6, 6)})
    out = net.conv(net.add("Relu", net.conv("x", 4, 4)), 4, 4)
    for node in net.nodes:
        node.name = "layer"
    names = [node.name for node in normalise(net.model(out), None)[0].graph]
    assert len(set(names)) == 3


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_the_proto_stays_as_it_is(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    before = model.SerializeToString(deterministic=True)
    normalise(model, None)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("domain", ["", "com.acme"])
def test_unknown_operators(domain: str) -> None:
    net = Net({"x": (1, 3)})
    out = net.add("Warp", "x", domain=domain)
    model = net.model(out)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(UnsupportedError, match=r"warp0.*Warp"):
        normalise(model, None)


def test_operators_of_onnxruntime_pass() -> None:
    net = Net({"x": (1, 3)})
    model = net.model(net.add("QuickGelu", "x", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert [node.op_type for node in normalise(model, None)[0].graph] == ["QuickGelu"]


@pytest.mark.parametrize("opset", [10, 17, 22])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_beyond_the_image_are_not_counted(op: str, opset: int) -> None:
    """Before opset 22 the library's inference counts them; onnxruntime never does."""
    for name, attrs in POOLS.items():
        net = Net({"x": (1, 2, 7, 9)})
        model = net.model(net.add("Relu", net.add(op, "x", **attrs)), opset=opset)
        assert shapes(model) == [a.shape for a in onnxruntime_run(model, feeds_for(model))], name


def test_windows_beyond_on_one_axis_of_a_counted_mean() -> None:
    net = Net({"x": (1, 2, 8, 8)})
    attrs = {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1, "count_include_pad": 1}
    with pytest.raises(UnsupportedError, match=r"averagepool0.*ceil_mode"):
        normalise(net.model(net.add("AveragePool", "x", **attrs)), None)


def test_weights_are_not_copied() -> None:
    """The model's arrays are views of the proto's bytes."""
    net = Net({"x": (1, 64, 4, 4)})
    proto = net.model(net.conv("x", 64, 64))
    model, _ = normalise(proto, None)
    weight = model.graph.initializers["w0"].const_value
    assert weight is not None
    assert not weight.numpy().flags.owndata
    np.testing.assert_array_equal(
        weight.numpy().ravel(), np.frombuffer(proto.graph.initializer[0].raw_data, np.float32)
    )


STATE = {"x": ("N", "T", 6), "h": (2, "N", 6)}


@pytest.mark.parametrize(
    ("stated", "given", "expected"),
    [
        ('{"x": [3, 7, 6], "h": [2, 3, 6]}', {}, [(1, 7, 6), (2, 1, 6)]),
        ('{"x": [3, 7, 6]}', {"h": (2, 4, 6)}, [(4, 7, 6), (2, 4, 6)]),
        ('{"x": [3, 7, 6]}', {"x": (5, 9, 6)}, [(5, 9, 6), (2, 5, 6)]),
        (None, {"x": (1, 9, 6)}, [(1, 9, 6), (2, 1, 6)]),
        ("[1", {"x": (1, 9, 6)}, [(1, 9, 6), (2, 1, 6)]),
    ],
)
def test_sizes_that_the_file_or_another_input_tells(
    stated: str | None, given: dict[str, tuple[int, ...]], expected: list[tuple[int, ...]]
) -> None:
    """Dimensions of one name are of one size; what was exported says the rest."""
    net = Net(STATE)
    model = net.model(net.add("Neg", "x"), net.add("Neg", "h"))
    if stated is not None:
        model.metadata_props.add(key=STATED, value=stated)
    assert shapes(model, given) == expected


@pytest.mark.parametrize("stated", [None, "[1", "[]", '{"x": "3"}', '{"x": [3, -7, 6]}', '{"x": [3]}', '{"y": [3, 7]}'])
def test_sizes_that_nothing_tells(stated: str | None) -> None:
    net = Net(STATE)
    model = net.model(net.add("Neg", "x"), net.add("Neg", "h"))
    if stated is not None:
        model.metadata_props.add(key=STATED, value=stated)
    with pytest.raises(ModelError, match=r"'x': dimension 1 \(T\) has no value"):
        normalise(model, None)
