"""An ONNX model from a path, bytes or a proto, with what can be wrong about it said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from prunus.errors import ModelError, UnsupportedError

OLDEST_OPSET = 9
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}


def load_model(source: str | Path | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """The model, weights included; a proto is returned as it is.

    Raises ModelError: no such file, not ONNX, truncated, without nodes, or of an opset before 9 or newer than the onnx
    package knows; or a weight is NaN or infinite.
    """
    name = "model"
    if isinstance(source, onnx.ModelProto):
        model = source
    elif isinstance(source, bytes):
        model = _parse(source, f"model of {len(source)} bytes")
    else:
        name = str(source)
        model = _read(Path(source))
    _check(model, name)
    return model


@contextmanager
def naming(source: object) -> Iterator[None]:
    """What is wrong with the model inside names the file, where `source` is one."""
    try:
        yield
    except (ModelError, UnsupportedError) as error:
        if not isinstance(source, str | Path) or str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error


def _read(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    model = _parse(data, str(path))
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path}: external data: {_first_line(error)}") from error
    return model


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{name}: not an ONNX model, or truncated ({_first_line(error)})") from error
    return model


def _check(model: onnx.ModelProto, name: str) -> None:
    if not model.HasField("graph"):
        raise ModelError(f"{name}: not an ONNX model: it has no graph")
    if not model.graph.output:
        raise ModelError(f"{name}: not an ONNX model, or truncated: the graph has no outputs")
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ModelError(f"{name}: opset {opset}, expected {OLDEST_OPSET} to {newest}")
    made = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    made |= {i.name for i in model.graph.input}
    for node in model.graph.node:
        _check_node(node, name)
        for value in node.input:
            if value and value not in made:
                reader = node.name or node.op_type
                raise ModelError(f"{name}: node {reader} reads {value!r}, which nothing makes before it")
        made.update(node.output)
    for output in model.graph.output:
        if output.name not in made:
            raise ModelError(f"{name}: output {output.name!r} is made by no node")
    check_weights(model, name)


def _check_node(node: onnx.NodeProto, name: str) -> None:
    """Raises ModelError: text that isn't UTF-8, which protobuf gives as bytes, or an attribute without a type."""
    for text in (node.op_type, node.name, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)):
        if not isinstance(text, str):
            raise ModelError(f"{name}: node {node.name!r} ({node.op_type}): altered: {text!r} isn't UTF-8 text")
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.UNDEFINED:
            raise ModelError(f"{name}: node {node.name or node.op_type!r}: attribute {attribute.name!r} has no type")


def check_weights(model: onnx.ModelProto, name: str) -> None:
    """Raises ModelError: an initialiser or constant holds NaN or infinity, or fewer values than its shape."""
    tensors = list(model.graph.initializer)
    tensors += [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(f"{name}: weight {tensor.name!r}: its values are in another file, which wasn't loaded")
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{name}: weight {tensor.name!r}: {_first_line(error)}") from error
        if tensor.data_type not in FLOATS:
            continue
        if values.size > 1 and not np.isfinite(values).all():  # a scalar infinity is a bound, as in Clip
            bad = int(values.size - np.isfinite(values).sum())
            raise ModelError(f"{name}: weight {tensor.name!r}: {bad} of {values.size} values are NaN or infinite")
        if values.size == 1 and np.isnan(values).any():
            raise ModelError(f"{name}: weight {tensor.name!r} is NaN")


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model imports; 1 if it names none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
