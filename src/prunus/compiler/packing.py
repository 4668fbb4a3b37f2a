"""Layers over packed channels: their weights as words, and the numbers by which sums become words again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.graph.ir import Activation, Format, Graph, Node
from prunus.kernels.isa import Isa
from prunus.sparsity import words

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """A layer's weights as a matrix of words int32[m', k'], rows filled up to whole words of the output where it is one
    of pixels; column j reads words of input number `source[j]`, of `columns`. `lone`: one filter per channel, and
    `matrix` is what `words.lone_quads` or `lone_pairs` gives."""

    pack: int
    matrix: NDArray[Any]
    source: NDArray[np.int64]
    columns: int
    lone: bool = False


def packed_weights(node: Node, graph: Graph, isa: Isa) -> Packed | None:
    """The weights of a conv or gemm whose input is packed; None where it isn't."""
    form = graph.values[node.inputs[0]].format
    if form is None:
        return None
    weight = graph.constants[node.attrs["weight"]]
    matrix = np.ascontiguousarray(weight.reshape(len(weight), -1))
    scales = graph.scales.get(node.attrs["weight"])
    values: NDArray[Any] = words.bf16_bits(matrix) if form.pack == 2 else words.quantised(matrix, _given(scales))
    groups = int(node.attrs.get("group", 1))
    channels = graph.values[node.inputs[0]].shape[1] // groups
    if is_depthwise(node, graph):
        lone: NDArray[Any] = (
            words.lone_pairs(values, len(weight))
            if values.dtype == np.uint16
            else words.lone_quads(values, len(weight))
        )
        return Packed(form.pack, lone.reshape(len(lone), -1), np.empty(0, np.int64), 0, True)
    out = graph.values[node.outputs[0]].shape
    rows = form.pack if node.op == "conv" and out[2] * out[3] > 1 else 1  # pixels are made in whole words
    made = words.words(values, channels, rows=rows)
    narrow = made.shape[1]
    source = np.arange(narrow)
    if form.pack == 4 and isa.saturates:
        made, source = words.without_overflow(made)
    return Packed(form.pack, made, np.concatenate([source + g * narrow for g in range(groups)]), narrow * groups)


def _given(scales: Floats | None) -> Floats:
    assert scales is not None, "int8 weights have scales"
    return scales


def is_depthwise(node: Node, graph: Graph) -> bool:
    """One filter per channel, more than one channel."""
    shape = graph.constants[node.attrs["weight"]].shape
    return node.op == "conv" and node.attrs["group"] == shape[0] > 1 and shape[1] == 1


def epilogue(node: Node, graph: Graph, scales: Floats | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Attributes (epilogue, bias, slope, activation) of a layer with packed input, and the constants they name.

    With sums in steps of scale_x * scale_w: y = sum * scale[row] + bias[row] (+ residual * residual_scale), activated,
    * post_scale + post_shift, rounded, clipped to low .. high. Where the activation only clips, all is in steps of the
    output.
    """
    name, x = node.name, graph.values[node.inputs[0]].format
    out = graph.values[node.outputs[0]]
    assert x is not None
    activation: Activation | None = node.attrs["activation"]
    rows = len(graph.constants[node.attrs["weight"]])
    bias = np.zeros(rows) if node.attrs["bias"] is None else graph.constants[node.attrs["bias"]].astype(np.float64)
    numbers: dict[str, Any] = {"residual_scale": 1.0, "post_scale": 1.0, "post_shift": 0.0, "low": 0, "high": 255}
    constants: dict[str, NDArray[Any]] = {}
    scale = None
    if x.pack == 4:
        weight = graph.constants[node.attrs["weight"]].reshape(rows, -1)
        sums = words.quantised(weight, _given(scales)).sum(axis=1, dtype=np.float64)
        scale = _given(scales).astype(np.float64) * x.scale
        bias = bias - scale * x.zero * sums
        if len(node.inputs) > 1:
            other = graph.values[node.inputs[1]].format
            assert other is not None
            numbers["residual_scale"] = other.scale
            bias = bias - other.scale * other.zero
        if out.format is not None:
            scale, bias, activation = _in_steps(scale, bias, activation, numbers, out.format)
        constants[f"{name}.scale"] = _filled(scale, x.pack)
    constants[f"{name}.bias"] = _filled(bias, x.pack)
    slope = node.attrs["slope"]
    if slope is not None:
        constants[f"{name}.slope"] = _filled(graph.constants[slope], x.pack)
    attrs: dict[str, Any] = {
        "epilogue": {"scale": None if scale is None else f"{name}.scale", **numbers},
        "bias": f"{name}.bias", "slope": None if slope is None else f"{name}.slope",
        "activation": None if activation is None else [activation.kind, list(activation.params)],
    }  # fmt: skip
    return attrs, constants


def _in_steps(
    scale: NDArray[Any], bias: NDArray[Any], activation: Activation | None, numbers: dict[str, Any], out: Format
) -> tuple[NDArray[Any], NDArray[Any], Activation | None]:
    """Scale, bias and what is left of the activation when the output is `out`; sets the other numbers."""
    kind = "none" if activation is None else activation.kind
    if kind not in ("none", "relu", "clip"):
        numbers |= {"post_scale": 1 / out.scale, "post_shift": float(out.zero)}
        return scale, bias, activation
    low, high = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf)}.get(kind) or activation.params  # type: ignore[union-attr]
    for key, bound in (("low", low), ("high", high)):  # rounding is monotonous: it and clipping change places
        numbers[key] = int(np.rint(np.clip(bound / out.scale + out.zero, 0, 255)))
    numbers["residual_scale"] /= out.scale
    return scale / out.scale, bias / out.scale + out.zero, None


def _filled(values: NDArray[Any], pack: int) -> Floats:
    """float32 with zeros up to a multiple of `pack`."""
    full = np.zeros(-(-len(values) // pack) * pack, np.float32)
    full[: len(values)] = values
    return full
