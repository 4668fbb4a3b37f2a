"""Loaded artefacts fed sequences of another length than planned: the same as compiled for that length, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prunus.compiler.compile import compile
from prunus.errors import FeedError
from prunus.runtime.session import Session, load
from tests.graph.recurrent import Case


def free(model: onnx.ModelProto, name: str = "time") -> onnx.ModelProto:
    """The model with any number of steps."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    return model


def loaded(session: Session, folder: Path) -> Session:
    session.save(folder / "a.prunus")
    return load(folder / "a.prunus", 1)


def with_more(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """The model with nodes behind, whose last output is its only one."""
    model.graph.node.extend(nodes)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None))
    return model


def last_step(model: onnx.ModelProto) -> onnx.ModelProto:
    node = helper.make_node("Slice", ["y", "begin", "end", "axis"], ["last"])
    return with_more(model, node, begin=np.array([-1]), end=np.array([2**31 - 1]), axis=np.array([0]))


def first_steps(model: onnx.ModelProto) -> onnx.ModelProto:
    node = helper.make_node("Slice", ["y", "begin", "end", "axis"], ["some"])
    return with_more(model, node, begin=np.array([0]), end=np.array([4]), axis=np.array([0]))


def per_step(model: onnx.ModelProto) -> onnx.ModelProto:
    """A fully connected layer for each step, behind a reshape."""
    nodes = [
        helper.make_node("Reshape", ["y", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["scores"], transB=1),
    ]
    head = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    return with_more(model, *nodes, shape=np.array([-1, 5]), head=head)


MODELS = {
    "layer": lambda t: Case("GRU", t=t, attrs={"linear_before_reset": 1}).build(),
    "both ways": lambda t: Case("LSTM", t=t, direction="bidirectional", states="given").build(),
    "given lengths": lambda t: Case("GRU", t=t, lengths=(1, 2), lengths_given=True).build(),
    "last step": lambda t: (lambda m, f: (last_step(m), f))(*Case("GRU", t=t).build()),
    "per step": lambda t: (lambda m, f: (per_step(m), f))(*Case("RNN", t=t).build()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("planned", [1, 3, 12])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_as_compiled_for_the_length(name: str, planned: int, precision: str, tmp_path: Path) -> None:
    model, feeds = MODELS[name](planned)
    if name == "per step" and precision == "int8":
        pytest.skip("its head's ranges depend on the data")
    session = loaded(compile(free(model), tune="off", threads=1, precision=precision,
                             input_shapes={"x": feeds["x"].shape}), tmp_path)  # fmt: skip
    for t in (1, 2, 5, 30, planned):
        fed = MODELS[name](t)[1]
        shapes = {key: array.shape for key, array in fed.items()}
        alike = compile(model, tune="off", threads=1, precision=precision, input_shapes=shapes)
        expected = alike.run(None, fed)
        for got, wanted in zip(session.run(None, fed), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(FeedError, match=r"input 'x': shape \[0, 2, 3\], expected \[steps, 2, 3\]"):
        session.run(None, {**fed, "x": fed["x"][:0]})
    with pytest.raises(FeedError, match=r"shape \[\d+, 2, 2\], expected \[steps, 2, 3\]"):
        session.run(None, {**fed, "x": fed["x"][..., :2]})


def test_the_number_is_fixed(tmp_path: Path) -> None:
    model, feeds = Case("GRU", t=3).build()
    session = loaded(compile(model, tune="off", threads=1), tmp_path)
    with pytest.raises(FeedError, match=r"input 'x': shape \[2, 2, 3\], expected \[3, 2, 3\]"):
        session.run(None, {"x": feeds["x"][:2]})


def test_fewer_steps_than_a_slice_takes(tmp_path: Path) -> None:
    model, feeds = Case("GRU", t=6).build()
    compiled = compile(free(first_steps(model)), tune="off", threads=1, input_shapes={"x": feeds["x"].shape})
    session = loaded(compiled, tmp_path)
    more = np.concatenate([feeds["x"]] * 2)
    np.testing.assert_array_equal(session.run(None, {"x": more})[0], session.run(None, feeds)[0])
    with pytest.raises(FeedError, match=r"shape \[5, 2, 3\], expected \[6 or more steps, 2, 3\]"):
        session.run(None, {"x": feeds["x"][:5]})


def test_what_grows_unevenly_is_refused(tmp_path: Path) -> None:
    """Every other step, before the layer."""
    model, feeds = Case("GRU", t=3).build()
    model.graph.node.insert(0, helper.make_node("Slice", ["x", "begin", "end", "axis", "by"], ["half"]))
    for name, value in (("begin", 0), ("end", 2**31 - 1), ("axis", 0), ("by", 2)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.node[1].input[0] = "half"
    session = loaded(compile(free(model), tune="off", threads=1, input_shapes={"x": (3, 2, 3)}), tmp_path)
    session.run(None, feeds)
    with pytest.raises(FeedError, match=r"shape \[6, 2, 3\], expected \[3, 2, 3\]"):
        session.run(None, {"x": np.concatenate([feeds["x"]] * 2)})
