"""ONNX in, Graph out: normalise, convert node by node, put what isn't compiled into partitions, fuse."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from prunus.errors import ModelError, UnsupportedError
from prunus.graph.convert.converters import CONVERTERS
from prunus.graph.fuse import fuse
from prunus.graph.ir import Graph, Node, Value, verify
from prunus.graph.load import load_model
from prunus.graph.normalise import normalise
from prunus.graph.onnx_node import Conversion, OnnxNode, dtype_of, static_shape
from prunus.graph.partition import Refused, partition
from prunus.graph.quantised import QUANTISERS, lift_formats, scales_of
from prunus.graph.scaling import same_but_for_batch, scales_with_batch
from prunus.sparsity.refusal import Refusal

MOST_AXES = 6  # that a record has
Decline = Callable[[Node], Refusal | None]


def read(
    source: str | Path | bytes | onnx.ModelProto,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    fallback: bool = True,
    *,
    keep_steps: bool = True,
    decline: Decline = lambda node: None,
) -> Graph:
    """The graph of an ONNX model.

    A symbolic leading dimension of the inputs is the batch: 1 unless `input_shapes` gives it; `Graph.batch` is set
    where the graph holds for any. Nodes that aren't compiled become "onnxruntime" nodes. Values that a file in QDQ form
    rounds are rounded if `keep_steps`, else only `Graph.formats` tells. `decline` says which nodes the caller can't do
    anything with, and why: they go to onnxruntime too.
    Raises ModelError, FeedError: as `load_model` and `normalise`. UnsupportedError: a node isn't compiled and
    `fallback` is False, or no engine knows its operator; names operator and node and says why.
    """
    proto = load_model(source)
    again = partial(_read, proto, fallback=fallback, keep_steps=keep_steps, decline=decline)
    graph = again(input_shapes)
    return replace(graph, batch=graph.batch and _holds_for_any_batch(graph, again))


def _holds_for_any_batch(graph: Graph, again: Callable[[Mapping[str, tuple[int, ...]]], Graph]) -> bool:
    """Folding may have fixed the batch size in shapes and constants, so the model is read at another one too."""
    if not scales_with_batch(graph):
        return False
    shapes = [graph.values[name].shape for name in graph.inputs]
    larger = {name: (shape[0] + 1, *shape[1:]) for name, shape in zip(graph.inputs, shapes, strict=True)}
    try:
        return same_but_for_batch(graph, again(larger))
    except (ModelError, UnsupportedError):
        return False


def _read(
    proto: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None, fallback: bool, keep_steps: bool,
    decline: Decline,
) -> Graph:  # fmt: skip
    """The graph at one batch size; `batch` says only that the inputs' leading dimensions are symbolic."""
    model, batch = normalise(proto, input_shapes)
    conversion = Conversion({}, {})
    steps: list[Node | Refused] = []
    for value in model.graph.inputs:
        conversion.values[str(value.name)] = Value(str(value.name), static_shape(value), dtype_of(value))
    for value in (v for node in model.graph for v in node.outputs if v.name):
        conversion.values[str(value.name)] = Value(str(value.name), static_shape(value), dtype_of(value))
    for onnx_node in model.graph:
        made = convert(onnx_node, model, conversion)
        if not isinstance(made, Refusal):
            made = next((refusal for node in made if (refusal := decline(node))), made)
        if isinstance(made, Refusal):
            name = onnx_node.name or str(onnx_node.outputs[0].name)
            if not fallback:
                raise UnsupportedError(f"node {name!r}: operator {onnx_node.op_type} isn't compiled: {made.reason}")
            steps.append(Refused(onnx_node, made.reason))
        else:
            steps += made
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    nodes = partition(model, steps, outputs, conversion)
    inputs = tuple(str(value.name) for value in model.graph.inputs)
    for name in inputs:
        if not conversion.values[name].dtype:
            raise ModelError(f"input {name!r} is no tensor")
    used = {name for node in nodes for name in (*node.inputs, *node.outputs)} | {*inputs, *outputs}
    values = {name: value for name, value in conversion.values.items() if name in used}
    graph = Graph(
        proto.graph.name or "model", inputs, outputs, tuple(nodes), values, conversion.constants, batch,
        scales=scales_of(model),
    )  # fmt: skip
    verify(graph)
    if not keep_steps:
        graph = lift_formats(graph)
        verify(graph)
    graph = fuse(graph)
    verify(graph)
    return graph


def convert(onnx_node: ir.Node, model: ir.Model, conversion: Conversion) -> list[Node] | Refusal:
    """The nodes that an ONNX node becomes, or why it doesn't."""
    if onnx_node.domain not in ("", "ai.onnx"):
        return Refusal(f"domain {onnx_node.domain}")
    if onnx_node.op_type in QUANTISERS:
        return QUANTISERS[onnx_node.op_type](onnx_node, conversion)
    converter = CONVERTERS.get(onnx_node.op_type)
    if converter is None:
        return Refusal("no converter")
    flowing = [v for v in onnx_node.inputs if v is not None and ir.convenience.get_const_tensor(v) is None]
    outputs = [v for v in onnx_node.outputs if v.name]
    for value in (*flowing, *outputs[:1]):
        expected = "int32" if _counts_steps(onnx_node, value) else "float32"
        if dtype_of(value) != expected:
            return Refusal(f"{value.name} is {dtype_of(value) or 'of unknown type'}, not {expected}")
        shape = static_shape(value)
        if min(shape, default=1) < 1:
            return Refusal(f"{value.name} has no static shape, or is empty: {list(shape)}")
        if len(shape) > MOST_AXES:
            return Refusal(f"{value.name} has {len(shape)} axes")
    if not flowing:
        return Refusal("only constants as inputs")
    attrs: dict[str, Any] = {}
    for name, attribute in onnx_node.attributes.items():
        value = attribute.value
        attrs[name] = tuple(value) if isinstance(value, list | tuple) else value
    opset = model.opset_imports.get("", 1)
    name = onnx_node.name or str(onnx_node.outputs[0].name)
    return converter(
        OnnxNode(onnx_node.op_type, name, opset, tuple(onnx_node.inputs), tuple(onnx_node.outputs), attrs, conversion)
    )


def _counts_steps(node: ir.Node, value: ir.Value) -> bool:
    """Does the value tell the lengths of sequences?"""
    return node.op_type in ("GRU", "LSTM", "RNN") and any(v is value for v in node.inputs[4:5])
