"""The libraries' own clean-up: functions inlined, shapes inferred, constants folded, what is unused removed.

Big initialisers never pass through a serialised model: the skeleton that the libraries see has them as inputs.
"""

import logging
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir

from prunus.errors import ModelError
from prunus.graph.ir import Shape
from prunus.graph.load import STANDARD_DOMAINS, first_line

SMALL = 1024  # elements; a constant up to here may matter to shape inference
FOLDED_SIZE = 1 << 28  # elements of a folded constant, at most
# would make something big out of nothing, or differ from run to run
UNFOLDED = ("ConstantOfShape", "Expand", "Tile", "Range", "EyeLike", "Dropout", "Bernoulli")

Arrays = Mapping[str, NDArray[np.generic]]


def extract(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    """The big initialisers of a model as arrays, each copied out of the proto once.

    Raises ModelError: the data of one doesn't fit its shape or type.
    """
    return {t.name: _array(t) for t in model.graph.initializer if np.prod(t.dims) > SMALL and t.data_type != TensorProto.STRING}


def normalise(model: ModelProto, arrays: Arrays, shapes: Mapping[str, Shape]) -> ir.Model:
    """The model as onnx-ir with static input shapes, folded; `arrays` are its big initialisers.

    Raises ModelError: the model contradicts itself.
    """
    skeleton = _skeleton(model, arrays, shapes)
    try:
        onnx.checker.check_model(skeleton)
        onnx.shape_inference.infer_shapes(skeleton, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{model.graph.name or 'model'}: {first_line(error)}") from error
    graph_model = ir.serde.deserialize_model(skeleton)
    graph = graph_model.graph
    for value in list(graph.inputs):
        if value.name in arrays:
            value.const_value = ir.Tensor(arrays[value.name], name=value.name)
            graph.inputs.remove(value)
            graph.register_initializer(value)
    passes.InlinePass()(graph_model)
    passes.TopologicalSortPass()(graph_model)
    _quietly_fold(graph_model)
    passes.RemoveUnusedNodesPass()(graph_model)
    return graph_model


def _quietly_fold(model: ir.Model) -> None:
    """Fold constants, shapes included, in one walk in topological order."""
    log = logging.getLogger("onnxscript.optimizer")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        fold_constants_ir(
            model, onnx_shape_inference=True, output_size_limit=FOLDED_SIZE,
            should_fold=lambda node: None if node.op_type in UNFOLDED else True,
        )  # fmt: skip
    finally:
        log.setLevel(before)


def _skeleton(model: ModelProto, arrays: Arrays, shapes: Mapping[str, Shape]) -> ModelProto:
    """A copy without big initialisers (they become inputs) and with only those shapes that are given."""
    result = ModelProto(ir_version=max(model.ir_version, 4))  # from 4 on initialisers needn't be inputs
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    graph = result.graph
    graph.name = model.graph.name or "model"
    graph.node.extend(model.graph.node)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            _array(tensor)
            graph.initializer.append(tensor)
    for value in model.graph.input:
        if value.name in shapes:
            elem = value.type.tensor_type.elem_type
            graph.input.append(onnx.helper.make_tensor_value_info(value.name, elem, shapes[value.name]))
    foreign = {name for n in model.graph.node if n.domain not in STANDARD_DOMAINS for name in n.output}
    for value in model.graph.output:
        copy = graph.output.add()
        copy.CopyFrom(value)
        if copy.type.HasField("tensor_type"):  # the file's shapes may be for other input shapes
            copy.type.tensor_type.ClearField("shape")
    graph.value_info.extend(v for v in model.graph.value_info if v.name in foreign)
    return result


def _array(tensor: TensorProto) -> NDArray[np.generic]:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"initialiser {tensor.name!r}: data doesn't fit shape {list(tensor.dims)}: {first_line(error)}"
        ) from error
