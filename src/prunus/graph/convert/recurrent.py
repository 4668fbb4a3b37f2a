"""Converters of GRU, LSTM and RNN: one `recurrent` node per direction, and what brings states and outputs in shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from prunus.errors import ModelError, UnsupportedError
from prunus.graph.ir import GATES, Activation, Node, Value
from prunus.graph.onnx_node import Converter, OnnxNode
from prunus.sparsity.refusal import Refusal

DIRECTIONS: Final = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}
DEFAULTS: Final = {"gru": ("Sigmoid", "Tanh"), "lstm": ("Sigmoid", "Tanh", "Tanh"), "rnn": ("Tanh",)}
# name in ONNX, lower case as onnxruntime takes it too -> kind, and defaults of alpha and beta: None for one that must
# be given; a function that takes none has none
FUNCTIONS: Final[dict[str, tuple[str, tuple[float | None, ...]]]] = {
    "relu": ("relu", ()),
    "tanh": ("tanh", ()),
    "sigmoid": ("sigmoid", ()),
    "affine": ("affine", (1.0, 0.0)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
    "scaledtanh": ("scaled_tanh", (None, None)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "elu": ("elu", (1.0,)),
    "softsign": ("softsign", ()),
    "softplus": ("softplus", ()),
}


def recurrent(kind: str) -> Converter:
    """The converter of GRU, LSTM or RNN."""
    return lambda n: _recurrent(n, kind)


@dataclass(frozen=True)
class _Layer:
    """What all directions share. `nodes` is added to."""

    n: OnnxNode
    kind: str
    directions: tuple[str, ...]
    batch_first: bool
    x: str  # [t, n, i]
    steps: int
    batch: int
    hidden: int
    nodes: list[Node] = field(default_factory=list)

    def name(self, name: str, direction: str) -> str:
        """With the direction behind it where there are two."""
        return name if len(self.directions) == 1 else f"{name}.{direction}"

    def add(self, op: str, inputs: tuple[str, ...], name: str, size: tuple[int, ...], **attrs: Any) -> str:
        """A node that makes a value of a name like this one; the name that the value got."""
        out = self.n.conversion.value(name, size)
        self.nodes.append(Node(op, f"{self.n.name}:{out}", inputs, (out,), attrs))
        return out

    def rename(self, name: str) -> None:
        """The last value made is the ONNX node's output of this name."""
        node = self.nodes[-1]
        shape = self.n.conversion.values.pop(node.outputs[0]).shape
        self.n.conversion.values[name] = Value(name, shape)
        self.nodes[-1] = replace(node, outputs=(name,), name=f"{self.n.name}:{name}")


def _recurrent(n: OnnxNode, kind: str) -> list[Node] | Refusal:
    weight, recurrence, bias = n.const(1), n.const(2), n.const(3)
    if weight is None or recurrence is None:
        return Refusal("the weights aren't constant" if weight is None else "the recurrent weights aren't constant")
    if n.given(3) and bias is None:
        return Refusal("the bias isn't constant")
    if n.given(7) and ((peepholes := n.const(7)) is None or peepholes.any()):
        return Refusal("peepholes")
    if n.const(0) is not None:
        return Refusal("a constant sequence")
    directions = DIRECTIONS.get(n.attr("direction", "forward"))
    if directions is None:
        return Refusal(f"direction {n.attr('direction')}")
    activations = _activations(n, kind, len(directions))
    layer = _begin(n, kind, directions, weight, recurrence, bias)
    lengths = _lengths(layer)
    if isinstance(lengths, Refusal):
        return lengths
    made = []
    for d, direction in enumerate(directions):
        given, inputs = [], [layer.x]
        attrs: dict[str, Any] = {"initial_h": None, "initial_c": None, "lengths": lengths}
        for key, index in (("h", 5), ("c", 6))[: 2 if kind == "lstm" else 1]:
            if n.given(index) and n.const(index) is None:
                given.append(key)
                inputs.append(_state(layer, index, d))
            elif n.given(index):
                attrs[f"initial_{key}"] = _constant_state(layer, index, d)
        if n.given(4) and n.const(4) is None:
            given.append("lengths")
            inputs.append(n.input(4))
        attrs |= {
            "kind": kind, "given": tuple(given), "activations": activations[d], "reverse": direction == "reverse",
            "weight": n.conversion.constant(layer.name(n.input(1), direction), weight[d]),
            "recurrence": n.conversion.constant(layer.name(n.input(2), direction), recurrence[d]),
            **_biases(layer, bias, d),
            "linear_before_reset": kind == "gru" and bool(n.attr("linear_before_reset", 0)),
            "clip": float(n.attr("clip")) if n.attr("clip", 0.0) else None,
            "input_forget": kind == "lstm" and bool(n.attr("input_forget", 0)),
        }  # fmt: skip
        shape = (layer.batch, layer.hidden)
        wanted = [("y", (layer.steps, *shape)), ("h", shape), *([("c", shape)] if kind == "lstm" else [])]
        outputs = tuple(n.conversion.value(f"{n.name}.{direction}.{key}", s) for key, s in wanted)
        layer.nodes.append(Node("recurrent", layer.name(n.name, direction), tuple(inputs), outputs, attrs))
        made.append(outputs)
    for index, pieces in enumerate(zip(*made, strict=True)):
        if index < len(n.outputs) and n.outputs[index].name:
            _join(layer, index, pieces)
    return layer.nodes


def _begin(
    n: OnnxNode, kind: str, directions: tuple[str, ...], weight: NDArray[Any], recurrence: NDArray[Any],
    bias: NDArray[Any] | None,
) -> _Layer:  # fmt: skip
    """Sizes checked, and x with time first."""
    if len(n.shape()) != 3 or recurrence.ndim != 3:
        _contradiction(n, weight, recurrence)
    batch_first = bool(n.attr("layout", 0))
    first, second, i = n.shape()
    steps, batch = (second, first) if batch_first else (first, second)
    hidden, d = recurrence.shape[2], len(directions)
    rows = GATES[kind] * hidden
    if weight.shape != (d, rows, i) or recurrence.shape != (d, rows, hidden) or n.attr("hidden_size", hidden) != hidden:
        _contradiction(n, weight, recurrence)
    if bias is not None and bias.shape != (d, 2 * rows):
        raise ModelError(f"node {n.name!r}: {n.op} has a bias {list(bias.shape)}, expected {[d, 2 * rows]}")
    layer = _Layer(n, kind, directions, batch_first, n.input(0), steps, batch, hidden)
    for index in (5, 6)[: 2 if kind == "lstm" else 1]:
        expected = (batch, d, hidden) if batch_first else (d, batch, hidden)
        if n.given(index) and n.shape(index) != expected:
            found = list(n.shape(index))
            raise ModelError(f"node {n.name!r}: {n.op} has an initial state {found}, expected {list(expected)}")
    if not batch_first:
        return layer
    x = layer.add("transpose", (layer.x,), f"{n.input(0)}.steps", (steps, batch, i), perm=(1, 0, 2))
    return replace(layer, x=x)


def _contradiction(n: OnnxNode, weight: NDArray[Any], recurrence: NDArray[Any]) -> NoReturn:
    hidden = f", hidden_size {n.attr('hidden_size')}" if n.attr("hidden_size") else ""
    raise ModelError(
        f"node {n.name!r}: {n.op} of input {list(n.shape())}, weight {list(weight.shape)} and recurrent weight "
        f"{list(recurrence.shape)} with direction {n.attr('direction', 'forward')}{hidden} contradict each other"
    )


def _activations(n: OnnxNode, kind: str, n_directions: int) -> list[tuple[Activation, ...]]:
    """Of each direction. Alphas and betas are taken in order, by the functions that have them."""
    each = len(DEFAULTS[kind])
    names: Sequence[str] = n.attr("activations") or DEFAULTS[kind] * n_directions
    if len(names) != each * n_directions:
        raise ModelError(f"node {n.name!r}: {n.op} has {len(names)} activations, expected {each * n_directions}")
    numbers = [list(n.attr("activation_alpha", ())), list(n.attr("activation_beta", ()))]
    found = []
    for name in names:
        if name.lower() not in FUNCTIONS:
            raise UnsupportedError(
                f"node {n.name!r}: {n.op} has activation {name!r}, expected one of Relu, Tanh, Sigmoid, Affine, "
                "LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign, Softplus"
            )
        function, defaults = FUNCTIONS[name.lower()]
        params = []
        for default, given, what in zip(defaults, numbers, ("alpha", "beta"), strict=False):
            value = given.pop(0) if given else default
            if value is None:
                raise ModelError(f"node {n.name!r}: {n.op} has activation {name} without activation_{what}")
            params.append(float(value))
        found.append(Activation(function, tuple(params)))
    return [tuple(found[d * each : (d + 1) * each]) for d in range(n_directions)]


def _lengths(layer: _Layer) -> tuple[int, ...] | Refusal | None:
    """Constant lengths, None where all steps count or they flow."""
    n = layer.n
    lengths = n.const(4)
    if n.given(4) and n.shape(4) != (layer.batch,):
        raise ModelError(f"node {n.name!r}: {n.op} has {list(n.shape(4))} sequence lengths, expected [{layer.batch}]")
    if lengths is None:
        return None
    if lengths.min() < 0 or lengths.max() > layer.steps:
        raise ModelError(
            f"node {n.name!r}: {n.op} has sequence lengths {lengths.tolist()}, expected 0 to {layer.steps}"
        )
    return None if (lengths == layer.steps).all() else tuple(lengths.tolist())


def _biases(layer: _Layer, bias: NDArray[Any] | None, d: int) -> dict[str, str | None]:
    """Both sides added, but for the candidate's recurrent one where the reset multiplies it."""
    if bias is None or not bias[d].any():
        return {"bias": None, "recurrence_bias": None}
    n, name = layer.n, layer.name(layer.n.input(3), layer.directions[d])
    ours, theirs = np.split(bias[d].astype(np.float64), 2)
    inside = None
    if layer.kind == "gru" and n.attr("linear_before_reset", 0):
        candidate = theirs[2 * layer.hidden :].copy()
        theirs[2 * layer.hidden :] = 0
        inside = n.conversion.constant(f"{name}_recurrence", candidate) if candidate.any() else None
    return {"bias": n.conversion.constant(name, ours + theirs), "recurrence_bias": inside}


def _constant_state(layer: _Layer, index: int, d: int) -> str | None:
    n = layer.n
    array = n.const(index)
    assert array is not None
    own = array[:, d] if layer.batch_first else array[d]
    return n.conversion.constant(layer.name(n.input(index), layer.directions[d]), own) if own.any() else None


def _state(layer: _Layer, index: int, d: int) -> str:
    """The name of a state [n, h] of a direction, cut out of that of all."""
    n, shape = layer.n, layer.n.shape(index)
    x, name = n.input(index), f"{n.name}.{layer.directions[d]}.{n.input(index)}"
    if len(layer.directions) > 1:
        axis = 1 if layer.batch_first else 0
        starts, ends = [0, 0, 0], list(shape)
        starts[axis], ends[axis] = d, d + 1
        size = tuple(e - s for s, e in zip(starts, ends, strict=True))
        cut = {"starts": tuple(starts), "ends": tuple(ends), "steps": (1, 1, 1)}
        x = layer.add("slice", (x,), f"{name}.piece", size, **cut)
    flat = (layer.batch, layer.hidden)
    return layer.add("reshape", (x,), name, flat, shape=flat)


def _join(layer: _Layer, index: int, pieces: Sequence[str]) -> None:
    """The ONNX node's output `index` of what the directions made: [t, d, n, h], or [n, t, d, h] with the batch first;
    states without the t."""
    out = str(layer.n.outputs[index].name)
    sizes = [layer.batch] if index else [layer.steps, layer.batch]
    if layer.batch_first and index == 0:
        turned = (layer.batch, layer.steps, layer.hidden)
        pieces = [layer.add("transpose", (p,), f"{p}.batch", turned, perm=(1, 0, 2)) for p in pieces]
        sizes = [layer.batch, layer.steps]
    axis = len(sizes) if layer.batch_first else len(sizes) - 1
    sizes.insert(axis, 1)
    shape = (*sizes, layer.hidden)
    names = tuple(layer.add("reshape", (p,), f"{p}.direction", shape, shape=shape) for p in pieces)
    if len(names) > 1:
        joined = (*shape[:axis], len(names), *shape[axis + 1 :])
        layer.add("concat", names, f"{out}.directions", joined, axis=axis)
    layer.rename(out)
