"""Converters of element-wise operators, normalisation, soft maximum and means."""

from typing import Any

import numpy as np

from prunus.graph.ir import Activation, Node
from prunus.graph.onnx_node import OnnxNode
from prunus.sparsity.refusal import Refusal


def activation(kind: str, **defaults: float) -> Any:
    """Converter of an activation whose parameters are attributes with these defaults."""

    def convert(n: OnnxNode) -> list[Node] | Refusal:
        params = tuple(float(n.attr(name, default)) for name, default in defaults.items())
        return n.node("activation", (n.input(),), activation=Activation(kind, params), slope=None)

    return convert


def clip(n: OnnxNode) -> list[Node] | Refusal:
    """Clip; bounds are attributes before opset 11, then inputs."""
    bounds = []
    for index, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), 1):
        found = n.numbers(name, index)
        if isinstance(found, Refusal):
            return found
        bounds.append(default if not found else float(found[0]))
    kind = Activation("relu") if bounds == [0.0, np.inf] else Activation("clip", tuple(bounds))
    return n.node("activation", (n.input(),), activation=kind, slope=None)


def gelu(n: OnnxNode) -> list[Node] | Refusal:
    """Gelu by erf."""
    if n.attr("approximate", "none") != "none":
        return Refusal("approximate gelu")
    return n.node("activation", (n.input(),), activation=Activation("gelu"), slope=None)


def prelu(n: OnnxNode) -> list[Node] | Refusal:
    """PRelu with a slope per channel, or a single one."""
    slope, shape = n.const(1), n.shape()
    if slope is None:
        return Refusal("the slope isn't constant")
    if slope.size == 1:
        kind = Activation("leaky_relu", (float(slope.ravel()[0]),))
        return n.node("activation", (n.input(),), activation=kind, slope=None)
    place = len(shape) - slope.ndim
    if (
        len(shape) < 2
        or slope.size != shape[1]
        or not 0 <= 1 - place < slope.ndim
        or slope.shape[1 - place] != shape[1]
    ):
        return Refusal("a slope that isn't per channel")
    name = n.conversion.constant(n.input(1), slope.ravel())
    return n.node("activation", (n.input(),), activation=Activation("prelu"), slope=name)


def binary(function: str) -> Any:
    """Converter of a binary operator; by a constant per channel it becomes scale and shift."""

    def convert(n: OnnxNode) -> list[Node] | Refusal:
        if len(n.inputs) == 1:
            return n.node("identity", (n.input(),))
        if len(n.inputs) > 2:
            return _chain(n, function)
        left, right = n.const(0), n.const(1)
        if left is not None and right is not None:
            return Refusal("two constants")
        if left is None and right is None:
            return n.node("binary", (n.input(0), n.input(1)), function=function, constant=None, constant_first=False)
        constant = left if left is not None else right
        index = 0 if left is not None else 1
        assert constant is not None
        per_channel = _per_channel(n, constant.astype(np.float32), index, function)
        if per_channel:
            return per_channel
        name = n.conversion.constant(n.input(index), constant)
        return n.node("binary", (n.input(1 - index),), function=function, constant=name, constant_first=index == 0)

    return convert


def _chain(n: OnnxNode, function: str) -> list[Node] | Refusal:
    """More than two inputs of one shape, two by two."""
    if any(n.const(i) is not None or n.shape(i) != n.out_shape for i in range(len(n.inputs))):
        return Refusal(f"{len(n.inputs)} inputs with constants or of several shapes")
    nodes, left = [], n.input(0)
    for i in range(1, len(n.inputs)):
        last = i == len(n.inputs) - 1
        out = n.output if last else n.conversion.value(f"{n.output}.{i}", n.out_shape)
        attrs = {"function": function, "constant": None, "constant_first": False}
        nodes.append(Node("binary", n.name if last else f"{n.name}.{i}", (left, n.input(i)), (out,), attrs))
        left = out
    return nodes


def _per_channel(n: OnnxNode, constant: Any, index: int, function: str) -> list[Node] | None:
    """x (+ - * /) a constant per channel as x * scale + shift; None where it is something else."""
    shape = n.shape(1 - index)
    if len(shape) < 2 or n.out_shape != shape or function not in ("add", "sub", "mul", "div"):
        return None
    place = 1 - (len(shape) - constant.ndim)
    along = constant.size == shape[1] and 0 <= place < constant.ndim and constant.shape[place] == shape[1]
    if not along and constant.size != 1:
        return None
    values = np.broadcast_to(constant.ravel(), (shape[1],))
    one, zero = np.ones(shape[1], np.float32), np.zeros(shape[1], np.float32)
    if function == "div" and index == 0:
        return None
    with np.errstate(divide="ignore"):
        scale, shift = {
            "add": (one, values), "mul": (values, zero), "div": (one / values, zero),
            "sub": (-one, values) if index == 0 else (one, -values),
        }[function]  # fmt: skip
    if not np.isfinite(scale).all():
        return None
    c = n.conversion
    return n.node(
        "scale_shift", (n.input(1 - index),), scale=c.constant(f"{n.output}.scale", scale),
        shift=c.constant(f"{n.output}.shift", shift),
    )  # fmt: skip


def batch_norm(n: OnnxNode) -> list[Node] | Refusal:
    """BatchNormalization at inference as scale and shift."""
    gamma, beta, mean, variance = (n.const(i) for i in range(1, 5))
    if gamma is None or beta is None or mean is None or variance is None:
        return Refusal("statistics that aren't constant")
    if n.attr("training_mode", 0) or sum(bool(o.name) for o in n.outputs) > 1:
        return Refusal("training mode")
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + n.attr("epsilon", 1e-5))
    shift = beta - mean * scale
    c = n.conversion
    node = Node(
        "scale_shift", n.name, (n.input(),), (n.output,),
        {"scale": c.constant(f"{n.output}.scale", scale), "shift": c.constant(f"{n.output}.shift", shift)},
    )  # fmt: skip
    return [node]


def softmax(log: bool) -> Any:
    """Converter of Softmax or LogSoftmax; before opset 13 all axes from `axis` on are one."""

    def convert(n: OnnxNode) -> list[Node] | Refusal:
        shape, c = n.shape(), n.conversion
        axis = int(n.attr("axis", -1 if n.opset >= 13 else 1)) % len(shape)
        if n.opset >= 13 or axis == len(shape) - 1:
            return n.node("softmax", (n.input(),), axis=axis, log=log)
        flat = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
        a, b = c.value(f"{n.output}.flat", flat), c.value(f"{n.output}.soft", flat)
        return [
            Node("reshape", f"{n.name}.flat", (n.input(),), (a,), {"shape": flat}),
            Node("softmax", n.name, (a,), (b,), {"axis": 1, "log": log}),
            Node("reshape", f"{n.name}.back", (b,), (n.output,), {"shape": shape}),
        ]

    return convert


def reduce_mean(n: OnnxNode) -> list[Node] | Refusal:
    """ReduceMean; axes are an attribute before opset 18, then an input."""
    axes = n.numbers("axes", 1)
    if isinstance(axes, Refusal):
        return axes
    rank = len(n.shape())
    if not axes and n.attr("noop_with_empty_axes", 0):
        return n.node("identity", (n.input(),))
    places = tuple(sorted(int(a) % rank for a in axes)) if axes else tuple(range(rank))
    return n.node("reduce_mean", (n.input(),), axes=places, keepdims=bool(n.attr("keepdims", 1)))
