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
MANY_STEPS = 8  # of a sequence, from which on the input's part is one product over time
BLOCK_STEPS = 64  # steps times sequences of one such product: its sums stay in a near cache


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


@dataclass(frozen=True)
class Apart:
    """The parts of a long sequence's matrix: `recurrence`, all rows, and `weight`, those that the input has, of which
    `block` steps are one product."""

    recurrence: Floats
    weight: Floats
    block: int


def apart(node: Node, graph: Graph, made: Stacked) -> Apart | None:
    """The input's part by itself, where there are steps enough to compute many of at a time."""
    t, n, _ = graph.values[node.inputs[0]].shape
    if t < MANY_STEPS:
        return None
    weight, h = graph.constants[node.attrs["weight"]], graph.constants[node.attrs["recurrence"]].shape[1]
    block = max(1, BLOCK_STEPS // n)
    return Apart(np.ascontiguousarray(made.matrix[:, :h]), weight, -(-t // -(-t // block)))


def over_time(node: Node, graph: Graph, parts: Apart) -> tuple[Node, Graph]:
    """The input's part as a convolution of one pixel per step and sequence, in a graph of its own."""
    n = graph.values[node.inputs[0]].shape[1]
    (rows, i), pixels = parts.weight.shape, parts.block * n
    attrs: Mapping[str, Any] = {
        "weight": "weight", "bias": None, "activation": None, "slope": None, "strides": (1, 1), "pads": (0, 0, 0, 0),
        "dilations": (1, 1), "group": 1, "kernel": (1, 1),
    }  # fmt: skip
    conv = Node("conv", input_name(node.name), ("x",), ("y",), attrs)
    values = {"x": Value("x", (1, i, 1, pixels)), "y": Value("y", (1, rows, 1, pixels))}
    return conv, Graph(conv.name, ("x",), ("y",), (conv,), values, {"weight": parts.weight.reshape(rows, i, 1, 1)})


def input_name(name: str) -> str:
    """The name by which a recurrent layer's product over time is known."""
    return f"{name}.input"


def as_product(node: Node, graph: Graph, matrix: Floats, *, again: bool = False) -> tuple[Node, Graph]:
    """A step's product as a fully connected layer of the same name, in a graph of its own: that is what is tuned.
    `again`: there are many steps."""
    batch = graph.values[node.inputs[0]].shape[1]
    rows, columns = matrix.shape
    attrs: Mapping[str, Any] = {
        "weight": "weight", "bias": None, "activation": None, "slope": None, "again": again,
        "held": node.attrs.get("held"),
    }  # fmt: skip
    gemm = Node("gemm", node.name, ("x",), ("y",), attrs)
    values = {"x": Value("x", (batch, columns)), "y": Value("y", (batch, rows))}
    return gemm, Graph(node.name, ("x",), ("y",), (gemm,), values, {"weight": matrix})
