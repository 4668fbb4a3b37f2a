"""ONNX files in QDQ form: QuantizeLinear and DequantizeLinear around float operators.

Weights that are stored as integers become float32, with their steps remembered. A value that is quantised and
dequantised is rounded to a format: a "pack" and an "unpack" node, which a compilation to int8 takes as its range.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from prunus.graph.ir import Activation, Format, Graph, Node, names_kept, producers
from prunus.graph.onnx_node import Conversion, static_shape
from prunus.sparsity.refusal import Refusal

MAY_BE_NEGATIVE = ("conv", "conv_transpose", "gemm", "binary", "scale_shift")
KEY = "prunus.scales"  # of a model's meta: name of a constant -> its steps


def fold_constant_steps(model: ir.Model) -> None:
    """Dequantise constants: initialisers under the names of the values that they replace."""
    scales: dict[str, NDArray[np.float32]] = {}
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
            continue
        stored, scale, zero = (_constant(node, i) for i in range(3))
        out = node.outputs[0]
        blocks = node.attributes.get("block_size")
        if stored is None or scale is None or scale.ndim > 1 or (blocks is not None and blocks.as_int() > 0):
            continue
        if zero is None:
            zero = np.zeros(1, stored.dtype)
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        along = [1] * stored.ndim
        if scale.size > 1:
            along[axis] = -1
        steps = stored.astype(np.float32) - zero.astype(np.float32).reshape(
            along if zero.size > 1 else [1] * stored.ndim
        )
        real = steps * scale.astype(np.float32).reshape(along if scale.size > 1 else [1] * stored.ndim)
        scales[str(out.name)] = scale.astype(np.float32).ravel()
        value = ir.Value(name=out.name, shape=ir.Shape(real.shape), type=ir.TensorType(ir.DataType.FLOAT))
        value.const_value = ir.Tensor(real, name=out.name)
        out.replace_all_uses_with(value, replace_graph_outputs=True) if out.is_graph_output() else (
            out.replace_all_uses_with(value)
        )
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(value)
    model.meta[KEY] = scales


def scales_of(model: ir.Model) -> dict[str, NDArray[np.float32]]:
    """Steps of the constants that were stored as integers, by name."""
    return dict(model.meta.get(KEY, {}))


def quantise(node: ir.Node, conversion: Conversion) -> list[Node] | Refusal:
    """QuantizeLinear: nothing, where every reader is a DequantizeLinear that undoes it."""
    form = _format(node)
    if isinstance(form, Refusal):
        return form
    if node.outputs[0].is_graph_output():
        return Refusal("its integers are an output")
    for reader in node.outputs[0].consumers():
        if reader.op_type != "DequantizeLinear" or _format(reader) != form:
            return Refusal(f"{reader.op_type} reads its integers")
    return []


def dequantise(node: ir.Node, conversion: Conversion) -> list[Node] | Refusal:
    """DequantizeLinear behind the QuantizeLinear that it undoes: the value rounded to their format."""
    made = node.inputs[0].producer() if node.inputs[0] is not None else None
    if made is None or made.op_type != "QuantizeLinear":
        return Refusal("it reads no QuantizeLinear")
    if isinstance(quantise(made, conversion), Refusal):
        return Refusal("the QuantizeLinear that it reads isn't compiled")
    form = _format(node)
    assert isinstance(form, Format)
    x, out = str(made.inputs[0].name), str(node.outputs[0].name)  # type: ignore[union-attr]
    steps = conversion.value(f"{out}.steps", conversion.values[x].shape)
    conversion.values[steps] = replace(conversion.values[steps], format=form)
    name = node.name or out
    return [Node("pack", f"{name}.pack", (x,), (steps,)), Node("unpack", name, (steps,), (out,))]


QUANTISERS: Final[Mapping[str, Callable[[ir.Node, Conversion], list[Node] | Refusal]]] = {
    "QuantizeLinear": quantise,
    "DequantizeLinear": dequantise,
}


def _format(node: ir.Node) -> Format | Refusal:
    """The format that a QuantizeLinear or DequantizeLinear stands for."""
    scale, zero = _constant(node, 1), _constant(node, 2)
    if scale is None or scale.size != 1 or (len(node.inputs) > 2 and node.inputs[2] is not None and zero is None):
        return Refusal("a scale or zero point that isn't one constant")
    value = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
    shape = static_shape(value)  # type: ignore[arg-type]
    if len(shape) not in (2, 4) or min(shape, default=0) < 1:
        return Refusal(f"{value.name} has shape {list(shape)}: expected [n, c] or [n, c, h, w]")  # type: ignore[union-attr]
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if dtype not in (np.uint8, np.int8):
        return Refusal(f"integers of type {dtype}")
    place = 0 if zero is None else int(zero.ravel()[0])
    return Format(4, float(scale.ravel()[0]), place + 128 * (dtype == np.int8))


def _constant(node: ir.Node, index: int) -> NDArray[Any] | None:
    if index >= len(node.inputs) or node.inputs[index] is None:
        return None
    tensor = ir.convenience.get_const_tensor(node.inputs[index])  # type: ignore[arg-type]
    return None if tensor is None else tensor.numpy()


def lift_formats(graph: Graph) -> Graph:
    """No value is rounded any more: `formats` says how those were that had been.

    What makes such files drops a ReLU where clipping to a range from 0 on does the same: it comes back.
    """
    formats = dict(graph.formats)
    names: dict[str, str] = {}
    made, kept = producers(graph), names_kept(graph)
    nodes = []
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        if node.op == "pack":
            form = graph.values[node.outputs[0]].format
            assert form is not None
            source = made.get(inputs[0])
            if form.zero == 0 and source is not None and source.op in MAY_BE_NEGATIVE:
                attrs = {"activation": Activation("clip", (0.0, 255 * form.scale)), "slope": None}
                nodes.append(Node("activation", node.name, inputs, node.outputs, attrs))
                formats[node.outputs[0]] = form
            else:
                formats.setdefault(inputs[0], form)
                names[node.outputs[0]] = inputs[0]
        elif node.op == "unpack" and node.outputs[0] in kept:
            nodes.append(Node("identity", node.name, inputs, node.outputs))
        elif node.op == "unpack":
            names[node.outputs[0]] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    used = {name for node in nodes for name in (*node.inputs, *node.outputs)} | {*graph.inputs, *graph.outputs}
    values = {name: replace(value, format=None) for name, value in graph.values.items() if name in used}
    return replace(graph, nodes=tuple(nodes), values=values, formats=formats)
