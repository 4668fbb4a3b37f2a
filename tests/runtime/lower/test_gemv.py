"""Fully connected layers, exactly: small integers, offsets of two bytes and of four, all heights of row groups."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.compiler.compile import compile
from prunus.runtime.plan import make_plan
from prunus.runtime.records import KINDS, RECORDS

RNG = np.random.default_rng(7)


def gemm(weights: np.ndarray) -> onnx.ModelProto:
    rows, columns = weights.shape
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc", transB=1)
    bias = numpy_helper.from_array(np.arange(rows, dtype=np.float32) % 5, "b")
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", columns), ("y", rows))]
    graph = helper.make_graph([node], "net", ports[:1], ports[1:], [numpy_helper.from_array(weights, "w"), bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def integers(rows: int, columns: int, sharing: int, density: float) -> np.ndarray:
    """Small integers; `sharing` neighbouring rows keep the same columns."""
    kept = np.repeat(RNG.random((-(-rows // sharing), columns)) < density, sharing, axis=0)[:rows]
    return (RNG.integers(1, 4, (rows, columns)) * kept).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 37, 1 << 16, (1 << 16) + 3])
@pytest.mark.parametrize("sharing, rows", [(1, 5), (4, 20), (8, 31), (16, 33), (64, 130)])
@pytest.mark.parametrize("batch", [1, 3])
def test_exactly(columns: int, sharing: int, rows: int, batch: int) -> None:
    weights = integers(rows, columns, sharing, 0.02 if columns > 1000 else 0.6)
    session = compile(gemm(weights), tune="off", threads=1)
    x = RNG.integers(-3, 4, (batch, columns)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, x @ weights.T + np.arange(rows, dtype=np.float32) % 5)


@pytest.mark.parametrize("columns, narrow", [(1 << 16, 1), ((1 << 16) + 1, 0)])
def test_two_bytes_where_they_suffice(columns: int, narrow: int) -> None:
    plan = make_plan(compile(gemm(integers(8, columns, 8, 0.01)), tune="off", threads=1).program)
    place = RECORDS["gemv"].index("narrow") + 2
    records, start = plan.records, 0
    while records[start] != KINDS["gemv"]:
        start += int(records[start + 1])
    assert records[start + place] == narrow
