"""The libraries' passes: shapes set and inferred, functions inlined, constants folded and lifted, leftovers removed."""

import logging
from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir

from prunus.errors import FeedError, ModelError, UnsupportedError

Shapes = Mapping[str, tuple[int, ...]]
FOREIGN_DOMAINS = ("com.microsoft", "com.ms.internal.nhwc")  # what onnxruntime adds to the standard


def normalise(proto: onnx.ModelProto, shapes: Shapes | None) -> tuple[ir.Model, bool]:
    """The model with static shapes, and whether the leading dimension of every input was symbolic.

    A symbolic leading dimension becomes 1 unless `shapes` gives it. The proto isn't changed and weights aren't copied.
    Raises ModelError: another symbolic dimension without a value. FeedError: `shapes` names no input or another rank.
    UnsupportedError: an operator that neither the standard nor onnxruntime knows.
    """
    check_operators(proto)
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model = ir.from_proto(proto)
    common.RemoveInitializersFromInputsPass()(model)
    batch = _set_shapes(model, shapes or {})
    common.InlinePass()(model)
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
            raise UnsupportedError(f"node {node.name or node.output[0]!r}: unknown operator {spelled}")


def _set_shapes(model: ir.Model, shapes: Shapes) -> bool:
    """Make every input's shape static; were all leading dimensions symbolic?"""
    names = [value.name for value in model.graph.inputs]
    for name in shapes:
        if name not in names:
            raise FeedError(f"input shape for {name!r}: the model's inputs are {', '.join(map(str, names))}")
    symbolic, changed = [], False
    for value in model.graph.inputs:
        if value.shape is None:
            if value.name not in shapes:
                raise ModelError(f"input {value.name!r} has no shape: give one (--input-shape {value.name}=1,3,224,224)")
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
                dims.append(1)
            else:
                label = getattr(dim, "value", None) or "?"
                example = ",".join(str(d) if isinstance(d, int) else "N" for d in value.shape)
                raise ModelError(
                    f"input {value.name!r}: dimension {axis} ({label}) has no value: give one "
                    f"(--input-shape {value.name}={example} with numbers)"
                )
        symbolic.append(len(dims) > 0 and not isinstance(value.shape[0], int))
        value.shape = ir.Shape(dims)
    _forget_shapes(model)
    return all(symbolic) and bool(symbolic)


def _forget_shapes(model: ir.Model) -> None:
    """Shapes of everything but inputs are inferred anew: the file's may be symbolic or of another size."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
