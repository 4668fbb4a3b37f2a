"""Models of odd structure, read and compiled, give what onnxruntime gives."""

import functools

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from prunus.compiler.compile import compile
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import verify
from prunus.graph.read import read
from tests.graph.structures import STRUCTURES
from tests.runtime.networks import assert_agrees, feeds_for, onnxruntime_run

Arrays = dict[str, NDArray[np.float32]]


@functools.cache
def case(name: str) -> tuple[onnx.ModelProto, Arrays, list[NDArray[np.float32]]]:
    model = STRUCTURES[name]()
    kinds = {port.name: helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type) for port in model.graph.input}
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {key: a.astype(kinds[key]) for key, a in feeds_for(model, seed=5).items() if key not in weights}
    return model, feeds, onnxruntime_run(model, feeds)


@pytest.mark.parametrize("name", STRUCTURES)
def test_read(name: str) -> None:
    model, feeds, expected = case(name)
    graph = read(model)
    verify(graph)
    values = evaluate(graph, feeds)
    assert_agrees([values[output] for output in graph.outputs], expected)


@pytest.mark.parametrize("name", STRUCTURES)
def test_compile(name: str) -> None:
    model, feeds, expected = case(name)
    session = compile(model, tune="off", threads=1)
    found = session.run(None, feeds)
    assert_agrees(found, expected)
    assert [a.dtype for a in found] == [a.dtype for a in expected]
    assert_agrees(session.run(None, feeds), expected)
