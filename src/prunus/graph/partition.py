"""Runs of nodes that aren't compiled, as ONNX models of their own for onnxruntime."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper

from prunus.graph.ir import Node, Value
from prunus.graph.onnx_node import Conversion, dtype_of, static_shape


@dataclass(frozen=True)
class Refused:
    """An ONNX node that no converter took, and why."""

    node: ir.Node
    reason: str


def partition(
    model: ir.Model, steps: Sequence[Node | Refused], outputs: Sequence[str], conversion: Conversion
) -> list[Node]:
    """Nodes in order; neighbouring refused ones become one "onnxruntime" node.

    Outputs of the model that are constants are made by such a node too.
    """
    nodes: list[Node] = []
    run: list[ir.Node] = []
    needed = _readers(steps, outputs)
    for step in steps:
        if isinstance(step, Refused):
            run.append(step.node)
            continue
        if run:
            nodes.append(_part(model, run, needed, conversion, len(nodes)))
            run = []
        nodes.append(step)
    if run:
        nodes.append(_part(model, run, needed, conversion, len(nodes)))
    constant = [v for v in model.graph.outputs if v.producer() is None and not v.is_graph_input()]
    for value in constant:
        nodes.append(_constant_output(model, value, conversion))
    return nodes


def _readers(steps: Sequence[Node | Refused], outputs: Sequence[str]) -> dict[str, list[object]]:
    """Who reads each value: nodes, refused nodes, or the model's outputs."""
    readers: dict[str, list[object]] = {name: ["output"] for name in outputs}
    for step in steps:
        names = step.inputs if isinstance(step, Node) else [v.name for v in _reads(step.node)]
        for name in names:
            readers.setdefault(str(name), []).append(step if isinstance(step, Node) else step.node)
    return readers


def _reads(node: ir.Node) -> list[ir.Value]:
    """Values that a node reads, those of its subgraphs from outside included."""
    found = [v for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        graphs = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else []
        graphs = list(attribute.value) if attribute.type == ir.AttributeType.GRAPHS else graphs
        for graph in graphs:
            inner = {id(v) for v in graph.inputs} | {id(v) for v in graph.initializers.values()}
            for n in graph:
                inner |= {id(v) for v in n.outputs}
            found += [v for n in graph for v in _reads(n) if id(v) not in inner]
    return found


def _part(
    model: ir.Model, run: Sequence[ir.Node], readers: dict[str, list[object]], conversion: Conversion, index: int
) -> Node:
    inside = {id(node) for node in run}
    made = {id(v) for node in run for v in node.outputs}
    inputs: dict[str, ir.Value] = {}
    initializers: dict[str, ir.Value] = {}
    for node in run:
        for value in _reads(node):
            if id(value) in made:
                continue
            if ir.convenience.get_const_tensor(value) is not None and not value.is_graph_input():
                initializers[str(value.name)] = value
            else:
                inputs[str(value.name)] = value
    outputs = [
        v for node in run for v in node.outputs
        if v.name and any(id(reader) not in inside for reader in readers.get(v.name, []))
    ]  # fmt: skip
    for value in outputs:
        conversion.values[str(value.name)] = Value(str(value.name), static_shape(value), dtype_of(value))
    proto = _model(model, [ir.to_proto(n) for n in run], list(inputs.values()), outputs, list(initializers.values()))
    names = "+".join(dict.fromkeys(node.op_type for node in run))
    return Node(
        "onnxruntime", f"onnxruntime{index}.{names[:60]}", tuple(inputs), tuple(str(v.name) for v in outputs),
        {"model": proto.SerializeToString()},
    )  # fmt: skip


def _model(
    model: ir.Model, nodes: Sequence[onnx.NodeProto], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value],
    initializers: Sequence[ir.Value],
) -> onnx.ModelProto:  # fmt: skip
    tensors = []
    for value in initializers:
        tensor = tensor_proto(value)
        tensor.name = str(value.name)
        tensors.append(tensor)
    graph = helper.make_graph(nodes, "part", [_info(v) for v in inputs], [_info(v) for v in outputs], tensors)
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    shape = None if value.shape is None else [d if isinstance(d, int) else None for d in value.shape]
    kind = value.dtype.value if value.dtype is not None else 0
    if not kind:
        info = onnx.ValueInfoProto()
        info.name = str(value.name)
        return info
    return helper.make_tensor_value_info(str(value.name), kind, shape)


def _constant_output(model: ir.Model, value: ir.Value, conversion: Conversion) -> Node:
    """An output that is a constant: a model without inputs."""
    name = str(value.name)
    tensor = tensor_proto(value)
    tensor.name = ""
    node = helper.make_node("Constant", [], [name], value=tensor)
    conversion.values[name] = Value(name, tuple(tensor.dims), dtype_of(value))
    proto = _model(model, [node], [], [value], [])
    return Node("onnxruntime", f"constant.{name}", (), (name,), {"model": proto.SerializeToString()})


def tensor_proto(value: ir.Value) -> onnx.TensorProto:
    """A constant as onnx spells it."""
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None, f"{value.name} is constant"
    return ir.to_proto(tensor)
