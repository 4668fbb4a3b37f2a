"""The libraries' passes: shapes set and inferred, functions inlined, constants folded and lifted, leftovers removed."""

import json
import logging
from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir

from prunus.errors import FeedError, ModelError, UnsupportedError
from prunus.graph.ceil_mode import drop_windows_beyond
from prunus.graph.load import opset_of
from prunus.graph.quantised import fold_constant_steps

Shapes = Mapping[str, tuple[int, ...]]
STATED = "prunus.input_shapes"  # in metadata_props: JSON, the shape of each input that the file was exported with
FOREIGN_DOMAINS = ("com.microsoft", "com.ms.internal.nhwc")  # what onnxruntime adds to the standard


def normalise(proto: onnx.ModelProto, shapes: Shapes | None) -> tuple[ir.Model, bool]:
    """The model with static shapes, and whether the leading dimension of every input was symbolic.

    A symbolic leading dimension becomes 1 unless `shapes` gives it; another one of the same name as one that has a
    value gets that, else what the file's metadata say it was exported with (`STATED`). The proto isn't changed and
    weights aren't copied.
    Raises ModelError: another symbolic dimension without a value. FeedError: `shapes` names no input or another rank.
    UnsupportedError: an operator that neither the standard nor onnxruntime knows.
    """
    check_operators(proto)
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        model = ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        raise ModelError(f"the model can't be read: {_cause(error)}") from error
    for node in model.graph:  # else they are numbered, and pruning knows them by their outputs
        node.name = node.name or next((value.name for value in node.outputs if value.name), None)
    common.RemoveInitializersFromInputsPass()(model)
    _own_constants(model)
    _restore_input_shapes(model, proto)
    batch = _set_shapes(model, shapes or {}, _stated(proto))
    common.InlinePass()(model)
    drop_windows_beyond(model)
    fold_constant_steps(model)
    for _ in range(2):
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
        fold_constants_ir(model, onnx_shape_inference=True, output_size_limit=1 << 22, should_fold=_should_fold)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    common.TopologicalSortPass()(model)
    common.NameFixPass()(model)
    return model, batch


def _cause(error: BaseException) -> str:
    """The first line of what began a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _should_fold(node: ir.Node) -> bool | None:
    """Small filled tensors too, which the library leaves alone: exported padding is made of them."""
    return True if node.op_type == "ConstantOfShape" else None


def check_operators(proto: onnx.ModelProto) -> None:
    """Raises UnsupportedError: an operator that no engine here knows; names operator and node."""
    functions = {(f.domain, f.name) for f in proto.functions}
    for node in proto.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = onnx.defs.has(node.op_type, domain) or domain in FOREIGN_DOMAINS or (domain, node.op_type) in functions
        if not known:
            spelled = f"{domain}.{node.op_type}" if domain else node.op_type
            raise UnsupportedError(f"node {_name(node)!r}: unknown operator {spelled}")
        if domain == "" and ("", node.op_type) not in functions:
            _check_attributes(node, opset_of(proto))


def _check_attributes(node: onnx.NodeProto, opset: int) -> None:
    """Raises ModelError: the operator isn't in that opset, or has no such attribute."""
    name = _name(node)
    if not onnx.defs.has(node.op_type, opset, ""):
        raise ModelError(f"node {name!r}: operator {node.op_type} isn't in opset {opset}, which the model imports")
    known = onnx.defs.get_schema(node.op_type, opset, "").attributes
    for attribute in node.attribute:
        if attribute.name not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise ModelError(
                f"node {name!r}: {node.op_type} has no attribute {attribute.name!r}, expected one of {expected}"
            )


def _name(node: onnx.NodeProto) -> str:
    """The node's name; that of its first output where it has none."""
    return node.name or next(iter(node.output), node.op_type)


def _own_constants(model: ir.Model) -> None:
    """Constant nodes get tensors of their own, over the same values: lifting names them, in the proto otherwise."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            value = node.attributes.get("value")
            if node.op_type == "Constant" and value is not None and value.type == ir.AttributeType.TENSOR:
                tensor = value.as_tensor()
                if tensor.dtype != ir.DataType.STRING:
                    own = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
                    node.attributes["value"] = ir.AttrTensor("value", own)


def _restore_input_shapes(model: ir.Model, proto: onnx.ModelProto) -> None:
    """An input that is an output too has got the output's shape, which may say less."""
    ports = {port.name: port for port in proto.graph.input}
    for value in model.graph.inputs:
        if value.is_graph_output():
            value.shape = ir.serde.deserialize_type_proto_for_shape(ports[str(value.name)].type)


def _stated(proto: onnx.ModelProto) -> Shapes:
    """The shapes in the metadata; none where they aren't ours to read."""
    text = next((prop.value for prop in proto.metadata_props if prop.key == STATED), "{}")
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: tuple(shape)
        for name, shape in found.items()
        if isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
    }


def _label(dim: object) -> str:
    """The name of a symbolic dimension, "" for one that has none."""
    return str(getattr(dim, "value", None) or "")


def _sizes_by_name(model: ir.Model, shapes: Shapes) -> dict[str, int]:
    """The size of each named dimension: the one that is given, else 1 where it leads an input."""
    given: dict[str, int] = {}
    leading: dict[str, int] = {}
    for value in model.graph.inputs:
        shape = shapes.get(str(value.name), ())
        for axis, dim in enumerate(value.shape or ()):
            if label := _label(dim):
                if axis < len(shape):
                    given.setdefault(label, int(shape[axis]))
                elif axis == 0:
                    leading[label] = 1
    return {**leading, **given}


def _set_shapes(model: ir.Model, shapes: Shapes, stated: Shapes) -> bool:
    """Make every input's shape static; were all leading dimensions symbolic?"""
    sizes = _sizes_by_name(model, shapes)
    names = [value.name for value in model.graph.inputs]
    for name in shapes:
        if name not in names:
            raise FeedError(f"input shape for {name!r}: the model's inputs are {', '.join(map(str, names))}")
    symbolic, changed = [], False
    for value in model.graph.inputs:
        if value.shape is None:
            if value.name not in shapes:
                raise ModelError(
                    f"input {value.name!r} has no shape: give one (--input-shape {value.name}=1,3,224,224)"
                )
            value.shape = ir.Shape(shapes[str(value.name)])
            symbolic.append(False)
            continue
        dims: list[int] = []
        given = shapes.get(str(value.name))
        if given is not None and len(given) != len(value.shape):
            raise FeedError(f"input shape {value.name}={list(given)}: the model's has {len(value.shape)} dimensions")
        for axis, dim in enumerate(value.shape):
            fixed = dim if isinstance(dim, int) and dim > 0 else None
            if given is not None:
                if given[axis] < 1:
                    raise FeedError(f"input shape {value.name}={list(given)}: dimensions are positive")
                changed |= fixed not in (None, given[axis])
                dims.append(int(given[axis]))
            elif fixed is not None:
                dims.append(fixed)
            elif axis == 0:
                dims.append(sizes.get(_label(dim), 1))
            elif _label(dim) in sizes:
                dims.append(sizes[_label(dim)])
            elif axis < len(stated.get(str(value.name), ())):
                dims.append(stated[str(value.name)][axis])
                if _label(dim):
                    sizes[_label(dim)] = dims[-1]
            else:
                label = _label(dim) or "?"
                example = ",".join(str(d) if isinstance(d, int) else "N" for d in value.shape)
                raise ModelError(
                    f"input {value.name!r}: dimension {axis} ({label}) has no value: give one "
                    f"(--input-shape {value.name}={example} with numbers)"
                )
        first = value.shape[0] if dims else 1
        symbolic.append(not isinstance(first, int) or first < 1)
        value.shape = ir.Shape(dims)
    _forget_shapes(model)
    return all(symbolic) and bool(symbolic)


def _forget_shapes(model: ir.Model) -> None:
    """Shapes of everything but inputs are inferred anew: the file's may be symbolic or of another size."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
