"""The graph: what an ONNX model says, normalised, in a handful of operators with all attributes resolved.

A Graph is a frozen record that can be printed, verified and evaluated. Nodes are in an order in which every input is
made before it is used. Constants (weights) are named arrays beside the nodes. `verify` is the grammar: a list of
OPS with the attributes each must have; `read` and every pass end with a graph that it accepts.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Format:
    """Channels (axis 1) packed in words of 4 bytes: `pack` = 2 bfloat16, or 4 uint8 that mean (byte - zero) * scale."""

    pack: int
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Value:
    """A tensor that flows: its name, shape (batch size filled in), numpy dtype name, and how its channels are packed,
    if they are."""

    name: str
    shape: Shape
    dtype: str = "float32"
    format: Format | None = None


@dataclass(frozen=True)
class Activation:
    """An element-wise function that an epilogue can apply. See ACTIVATIONS for kinds and their parameters."""

    kind: str
    params: tuple[float, ...] = ()


# kind -> names of its parameters. prelu's slope is a constant per channel and travels as a constant, not here.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": (),
    "clip": ("low", "high"),
    "leaky_relu": ("alpha",),
    "sigmoid": (),
    "hard_sigmoid": ("alpha", "beta"),
    "hard_swish": (),
    "silu": (),
    "tanh": (),
    "elu": ("alpha",),
    "softplus": (),
    "exp": (),
    "sqrt": (),
    "abs": (),
    "neg": (),
    "erf": (),
    "gelu": (),
}

# those that gates of recurrent layers may have
GATE_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    **{
        kind: ACTIVATIONS[kind] for kind in ("relu", "tanh", "sigmoid", "hard_sigmoid", "leaky_relu", "elu", "softplus")
    },
    "affine": ("alpha", "beta"),  # alpha * x + beta
    "thresholded_relu": ("alpha",),  # x above alpha, else 0
    "scaled_tanh": ("alpha", "beta"),  # alpha * tanh(beta * x)
    "softsign": (),
}
GATES: dict[str, int] = {"gru": 3, "lstm": 4, "rnn": 1}  # kinds of recurrent layers: matrices stacked as rows


@dataclass(frozen=True)
class Node:
    """One operator. `inputs` name flowing values only; constants are named in `attrs`."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


# attributes that name constants
CONSTANTS = (
    "weight", "bias", "slope", "constant", "scale", "shift", "recurrence", "recurrence_bias", "initial_h", "initial_c",
)  # fmt: skip

# The operators of the graph and the attributes each has. Spatial attributes are 2-D: (h, w); pads (top, left, bottom,
# right). A 1-D convolution or pooling is read as 2-D with h = 1 between two reshapes.
#
# An epilogue, on conv, conv_transpose and gemm: `bias` (name of a constant float32[o] or None), `activation`
# (Activation or None), `slope` (constant float32[o], when the activation is prelu: kind "prelu", else None), and a
# residual that is added before the activation: it is then the node's second input, of the output's shape.
OPS: dict[str, tuple[str, ...]] = {
    # weight float32[o, i / group, kh, kw]
    "conv": ("weight", "strides", "pads", "dilations", "group", "bias", "activation", "slope"),
    # weight float32[i, o / group, kh, kw]
    "conv_transpose": (
        "weight",
        "strides",
        "pads",
        "output_pads",
        "dilations",
        "group",
        "bias",
        "activation",
        "slope",
    ),
    # x[..., k], or x[n, c, h, w] with k = c * h * w > w, by constant weight float32[o, k]: outputs first,
    # alpha and beta folded in
    "gemm": ("weight", "bias", "activation", "slope"),
    # one direction of a GRU, LSTM or RNN: x[t, n, i], then what `given` lists of h[n, h], c[n, h], lengths int32[n], to
    # y[t, n, h], the last h[n, h] and, of an LSTM, the last c[n, h]. weight float32[gates * h, i], recurrence
    # float32[gates * h, h], gates z r h, or i o f c; bias float32[gates * h]; recurrence_bias float32[h], of a GRU's
    # candidate inside the reset. initial_h, initial_c float32[n, h] where they aren't given, None: zeros. lengths: a
    # tuple where they are constant, None: all steps, or given. activations: of f, g, h. clip: bound of what goes into
    # f and g, or None; an LSTM's h isn't clipped, as in onnxruntime. Beyond its length a sequence has y = 0; the last
    # states of one of length 0 are 0
    "recurrent": (
        "kind",
        "weight",
        "recurrence",
        "bias",
        "recurrence_bias",
        "activations",
        "linear_before_reset",
        "reverse",
        "clip",
        "input_forget",
        "given",
        "initial_h",
        "initial_c",
        "lengths",
    ),
    "max_pool": ("kernel", "strides", "pads", "dilations"),  # pads as resolved with ceil_mode and auto_pad
    "avg_pool": ("kernel", "strides", "pads", "count_include_pad"),  # ceil_mode beyond pads isn't compiled
    "global_avg_pool": (),
    "global_max_pool": (),
    "activation": ("activation", "slope"),
    # two inputs that broadcast; or one input and a constant: `constant` names it (else None), `constant_first`
    # says which side it is on. function: add sub mul div min max pow
    "binary": ("function", "constant", "constant_first"),
    "concat": ("axis",),
    "slice": ("starts", "ends", "steps"),  # one entry per axis, resolved to 0 <= start <= end <= size, step >= 1
    "split": ("axis", "sizes"),
    "pad": ("pads", "mode", "value"),  # pads: ((before, after), ...) per axis, >= 0; mode constant, reflect or edge
    "reshape": ("shape",),  # also Flatten, Squeeze, Unsqueeze
    "transpose": ("perm",),
    "softmax": ("axis", "log"),
    # out[.., y, x] from in at: scale-resolved source coordinates. mode nearest or linear. rank 4, h and w only
    "resize": ("mode", "coordinates", "nearest_mode", "scales"),
    "reduce_mean": ("axes", "keepdims"),
    "scale_shift": ("scale", "shift"),  # per channel (axis 1): a BatchNormalization that no convolution took in
    "identity": (),
    "pack": (),  # float32 to the output's format
    "unpack": (),  # and back
    # out[n, c * pack + i, y, j] = x[n, c, y, j * step - left + i], zero beyond x, in the output's format: a word holds
    # neighbours in a row instead of channels
    "fold": ("step", "left"),
    # a part that another engine runs: `model` is a serialised ONNX model whose inputs and outputs are the node's
    "onnxruntime": ("model",),
}


@dataclass(frozen=True)
class Graph:
    """A network. `batch` says that the leading dimension of every input was symbolic in the file: it may change.

    `values` has every flowing tensor by name, inputs and outputs included. `constants` are never written to.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, NDArray[Any]]
    batch: bool = False
    # what a file in QDQ form says: formats of values by name, and steps of constants per filter, float32[o]
    formats: Mapping[str, Format] = field(default_factory=dict)
    scales: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def fresh(name: str, taken: Container[str]) -> str:
    """The name, or with a number behind it where it is taken: files may use any name."""
    candidate, n = name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}#{n}"
    return candidate


def producers(graph: Graph) -> dict[str, Node]:
    """The node that makes each value; inputs of the graph have none."""
    return {output: node for node in graph.nodes for output in node.outputs}


def consumers(graph: Graph) -> dict[str, list[Node]]:
    """The nodes that read each value, in order; a node that reads it twice appears twice."""
    readers: dict[str, list[Node]] = {name: [] for name in graph.values}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].append(node)
    return readers


def names_kept(graph: Graph) -> set[str]:
    """Values that no pass may replace by others: outputs, and what partitions read, whose models know it by name."""
    return {*graph.outputs, *(name for node in graph.nodes if node.op == "onnxruntime" for name in node.inputs)}


def verify(graph: Graph) -> None:
    """Assert the grammar: known operators, exactly their attributes, inputs made before use, float32 constants."""
    made = set(graph.inputs)
    for node in graph.nodes:
        assert node.op in OPS, f"{node.name}: unknown operator {node.op}"
        assert set(node.attrs) == set(OPS[node.op]), f"{node.name}: attributes {sorted(node.attrs)} of {node.op}"
        assert made.issuperset(node.inputs), f"{node.name}: reads {set(node.inputs) - made} before it is made"
        assert not made.intersection(node.outputs), f"{node.name}: makes {node.outputs} again"
        made.update(node.outputs)
        for key in CONSTANTS:
            constant = node.attrs.get(key)
            assert constant is None or constant in graph.constants, f"{node.name}: no constant {constant}"
            assert constant is None or graph.constants[constant].dtype == np.float32, f"{node.name}: {constant}"
        activation = node.attrs.get("activation")
        assert activation is None or activation.kind in (*ACTIVATIONS, "prelu"), f"{node.name}: {activation}"
        if node.op == "recurrent":
            _verify_recurrent(node, graph)
    assert made.issuperset(graph.outputs), f"outputs {set(graph.outputs) - made} are never made"
    assert made.issubset(graph.values), f"values {made - set(graph.values)} have no shape"


def _verify_recurrent(node: Node, graph: Graph) -> None:
    a, (t, n, i) = node.attrs, graph.values[node.inputs[0]].shape
    assert a["kind"] in GATES, f"{node.name}: {a['kind']}"
    rows, h = graph.constants[a["recurrence"]].shape
    assert rows == GATES[a["kind"]] * h and graph.constants[a["weight"]].shape == (rows, i), f"{node.name}: matrices"
    for key, shape in {"bias": (rows,), "recurrence_bias": (h,), "initial_h": (n, h), "initial_c": (n, h)}.items():
        assert a[key] is None or graph.constants[a[key]].shape == shape, f"{node.name}: {key}"
    sizes = {"h": (n, h), "c": (n, h), "lengths": (n,)}
    assert list(a["given"]) == [key for key in sizes if key in a["given"]], f"{node.name}: {a['given']}"
    found = [graph.values[name].shape for name in node.inputs[1:]]
    assert found == [sizes[key] for key in a["given"]], f"{node.name}: inputs {found}"
    outputs = [graph.values[name].shape for name in node.outputs]
    states = 2 if a["kind"] == "lstm" else 1
    assert outputs == [(t, n, h)] + [(n, h)] * states, f"{node.name}: outputs {outputs}"
    assert len(a["activations"]) == states + (a["kind"] != "rnn"), f"{node.name}: {a['activations']}"
    assert all(act.kind in GATE_ACTIVATIONS for act in a["activations"]), f"{node.name}: {a['activations']}"
    assert a["lengths"] is None or ("lengths" not in a["given"] and len(a["lengths"]) == n), f"{node.name}: lengths"
    assert not any(key in a["given"] and a[f"initial_{key}"] is not None for key in "hc"), f"{node.name}: a state twice"
