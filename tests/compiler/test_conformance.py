"""ONNX's own node tests through the whole compiler, for every operator that has a converter."""

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

from prunus.compiler.compile import compile
from prunus.errors import PrunusError
from prunus.graph.convert.converters import CONVERTERS

# Not ours to pass: onnxruntime itself, which runs what isn't compiled, can't load these.
REFUSED_BY_ONNXRUNTIME = ("bfloat16", "FLOAT8", "float8", "UINT4", "INT4", "int4", "FLOAT4", "INT2", "UINT2", "e8m0")


# onnxruntime takes the whole output length for these, and we do as it does; the reference takes size * scale.
FRACTIONAL_LENGTH = tuple(f"test_resize_downsample_scales_{mode}_align_corners" for mode in ("linear", "cubic"))


@cache
def cases() -> dict[str, Any]:
    """Node tests whose operators all have converters, by name; expanded functions are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnx.backend.test.case.node as node_tests

        found = node_tests.collect_testcases(None)
    return {
        case.name: case
        for case in found
        if {node.op_type for node in case.model.graph.node} <= set(CONVERTERS)
        and not case.name.endswith("_expanded")
        and case.name not in FRACTIONAL_LENGTH
        and not any(word in case.name for word in REFUSED_BY_ONNXRUNTIME)
    }


def is_compiled(case: Any) -> bool:
    """All inputs are float32."""
    return all(v.type.tensor_type.elem_type == 1 for v in case.model.graph.input)


@pytest.mark.parametrize("name", sorted(cases()))
def test_node(name: str) -> None:
    case = cases()[name]
    inputs, outputs = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    feeds = dict(zip(names, inputs, strict=False))
    shapes = {key: np.shape(value) for key, value in feeds.items()}
    if any(not isinstance(value, np.ndarray) or 0 in value.shape for value in feeds.values()):
        pytest.skip("sequences, optionals and empty tensors")
    try:
        session = compile(case.model, tune="off", threads=1, input_shapes=shapes)
    except PrunusError as error:
        pytest.skip(f"refused: {error}")
    found = session.run(None, {key: feeds[key] for key in session.program.inputs})
    for got, wanted in zip(found, outputs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=max(case.rtol, 2e-5), atol=max(case.atol, 1e-6))


def test_enough_cases_are_compiled() -> None:
    """The list isn't empty by accident, and most of it runs in our own kernels."""
    assert sum(is_compiled(case) for case in cases().values()) > 200
