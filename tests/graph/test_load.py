"""A model from a path, bytes or a proto; what is wrong with it in one line. More of it in tests/test_bad_input.py."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prunus.errors import ModelError
from prunus.graph.load import OLDEST_OPSET, load_model, opset_of
from tests.runtime.networks import Net, residual


def small(opset: int = 17) -> onnx.ModelProto:
    net = Net({"x": (1, 3, 6, 6)})
    return net.model(net.conv("x", 4, 3), opset=opset)


def test_proto_is_returned_as_it_is() -> None:
    model = small()
    before = model.SerializeToString(deterministic=True)
    assert load_model(model) is model
    assert model.SerializeToString(deterministic=True) == before


def test_bytes_and_paths(tmp_path: Path) -> None:
    model = small()
    assert load_model(model.SerializeToString()) == model
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    assert load_model(path) == model
    assert load_model(str(path)) == model


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = small()
    onnx.save(small(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    loaded = load_model(tmp_path / "net.onnx")
    for found, wanted in zip(loaded.graph.initializer, model.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(wanted))


@pytest.mark.parametrize("opset", [OLDEST_OPSET, onnx.defs.onnx_opset_version()])
def test_opsets(opset: int) -> None:
    assert opset_of(load_model(small(opset))) == opset


@pytest.mark.parametrize("opset", [1, OLDEST_OPSET - 1, onnx.defs.onnx_opset_version() + 1])
def test_opsets_outside(opset: int) -> None:
    with pytest.raises(ModelError, match=rf"opset {opset}, expected {OLDEST_OPSET} to"):
        load_model(small(opset))


def test_opset_among_others() -> None:
    model = small()
    model.opset_import.insert(0, helper.make_opsetid("com.microsoft", 1))
    assert opset_of(model) == 17
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("ai.onnx", 15))
    assert opset_of(load_model(model)) == 15


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: No such file"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match=r"directory"):
        load_model(tmp_path)


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    data = residual().SerializeToString()
    for damage, said in ((b"", "has no graph"), (data[:700], r"net\.onnx: "), (b"\xff" * 64, "not an ONNX model")):
        path.write_bytes(damage)
        with pytest.raises(ModelError, match=said) as caught:
            load_model(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_infinite_scalars_are_bounds() -> None:
    """A scalar infinity is a bound of Clip; among weights it is an error, and NaN always is."""
    net = Net({"x": (1, 3)})
    model = net.model(net.add("Clip", "x", "", net.constant(np.array(np.inf, np.float32))))
    assert load_model(model) is model
    for array in (np.array([1, -np.inf], np.float32), np.array(np.nan, np.float32), np.array([np.nan, 1], np.float16)):
        bad = Net({"x": (1, 2)})
        name = bad.constant(array)
        with pytest.raises(ModelError, match=repr(name)):
            load_model(bad.model(bad.add("Add", "x", name)))


def test_constants_of_nodes_are_checked() -> None:
    net = Net({"x": (1, 2)})
    made = net.add("Constant", value=numpy_helper.from_array(np.array([1, np.nan], np.float32), "inner"))
    with pytest.raises(ModelError, match="NaN"):
        load_model(net.model(net.add("Add", "x", made)))


def test_integers_may_be_anything() -> None:
    net = Net({"x": (1, 2)})
    net.constant(np.array([2**63 - 1, -(2**63)]))
    assert load_model(net.model(net.add("Relu", "x")))
