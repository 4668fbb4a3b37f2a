"""A recurrent layer's weights as the matrices that its steps multiply; see docs/adr/0016-recurrent.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.graph.ir import Graph, Node, Value

Floats = NDArray[np.float32]
SPAN = 128  # columns: W begins at a multiple, as the blocks of both parts do
FEW = 16  # and at one of this where the state is smaller than a span


@dataclass(frozen=True)
class Stacked:
    """`matrix` [rows, input_start + i]: the recurrence first, then zeros, then the weights of the input. `bias`: per
    row. `second`: of a GRU that resets before its product, the candidate's recurrence."""

    matrix: Floats
    bias: Floats | None
    input_start: int
    second: Floats | None
    size: int  # of the weights themselves, zeros in between not counted


def stacked(node: Node, graph: Graph) -> Stacked:
    """The matrices of a `recurrent` node."""
    attrs, constants = node.attrs, graph.constants
    weight, recurrence = constants[attrs["weight"]], constants[attrs["recurrence"]]
    (rows, i), h = weight.shape, recurrence.shape[1]
    start = -(-h // (SPAN if h > SPAN else FEW)) * (SPAN if h > SPAN else FEW)
    is_gru = attrs["kind"] == "gru"
    lone = is_gru and attrs["linear_before_reset"]  # h more rows: the candidate's recurrence, alone
    matrix = np.zeros((rows + (h if lone else 0), start + i), np.float32)
    shared = 2 * h if is_gru else rows
    matrix[:shared, :h] = recurrence[:shared]
    matrix[:rows, start:] = weight
    if lone:
        matrix[rows:, :h] = recurrence[2 * h :]
    bias = None if attrs["bias"] is None else constants[attrs["bias"]]
    inside = None if attrs["recurrence_bias"] is None else constants[attrs["recurrence_bias"]]
    if lone and (bias is not None or inside is not None):
        nothing = np.zeros(h, np.float32)
        outside = np.zeros(rows, np.float32) if bias is None else bias
        bias = np.concatenate([outside, nothing if inside is None else inside])
    second = np.ascontiguousarray(recurrence[2 * h :]) if is_gru and not lone else None
    return Stacked(matrix, bias, start, second, weight.size + recurrence.size)


def as_product(node: Node, graph: Graph, matrix: Floats) -> tuple[Node, Graph]:
    """A step's product as a fully connected layer of the same name, in a graph of its own: that is what is tuned."""
    batch = graph.values[node.inputs[0]].shape[1]
    rows, columns = matrix.shape
    attrs: Mapping[str, Any] = {"weight": "weight", "bias": None, "activation": None, "slope": None}
    gemm = Node("gemm", node.name, ("x",), ("y",), attrs)
    values = {"x": Value("x", (batch, columns)), "y": Value("y", (batch, rows))}
    return gemm, Graph(node.name, ("x",), ("y",), (gemm,), values, {"weight": matrix})
