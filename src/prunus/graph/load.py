"""ONNX models from a path, bytes or a proto, and the checks that need no shapes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from prunus.errors import ModelError, UnsupportedError

OLDEST_OPSET = 9
FOREIGN_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")  # of onnxruntime's own operators
STANDARD_DOMAINS = ("", "ai.onnx")


def load_model(source: str | Path | bytes | ModelProto) -> ModelProto:
    """The model of a path, of serialised bytes, or the proto itself, checked to be a graph of a known opset.

    Weights in files beside the model are read too.
    Raises ModelError: missing, not ONNX, truncated, empty, or of an opset that is too old or too new.
    """
    if isinstance(source, ModelProto):
        model, name = source, source.graph.name or "model"
    elif isinstance(source, bytes):
        model, name = _parse(source, "model (bytes)"), "model (bytes)"
        _refuse_external(model, name)
    else:
        path, name = Path(source), str(source)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{name}: {error.strerror or error}: expected an ONNX file") from error
        model = _parse(data, name)
        _load_external(model, path)
    _check_header(model, name)
    return model


def standard_opset(model: ModelProto) -> int:
    """Version of the standard operators that the model was written for."""
    return max(
        (int(o.version) for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=0
    )


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Nodes of a graph and of the graphs in their attributes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                yield from all_nodes(body)


def check_operators(model: ModelProto) -> None:
    """Every operator is a standard one of the model's opset, one of onnxruntime's, or a function of the model.

    Raises UnsupportedError: names the operator and its node.
    """
    versions = {o.domain: int(o.version) for o in model.opset_import}
    versions.setdefault("", versions.get("ai.onnx", 0))
    functions = {(f.domain, f.name) for f in model.functions}
    nodes = list(all_nodes(model.graph))
    nodes += [node for function in model.functions for node in function.node]
    for node in nodes:
        if node.domain in FOREIGN_DOMAINS or (node.domain, node.op_type) in functions:
            continue
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        version = versions.get(domain, 0)
        try:
            onnx.defs.get_schema(node.op_type, version, domain)
        except onnx.defs.SchemaError as error:
            where = f"domain {domain} version {version}" if domain else f"ONNX opset {version}"
            label = node.name or (node.output[0] if node.output else "")
            raise UnsupportedError(
                f"operator {node.op_type} of node {label!r}: not an operator of {where}"
            ) from error


def check_weights(name: str, array: NDArray[np.floating], node: str, *, finite: bool) -> None:
    """No NaN in a constant that `node` reads; no infinity either if `finite`.

    Raises ModelError: names the constant and the node.
    """
    if array.size == 0:
        return
    low, high = float(array.min()), float(array.max())  # NaN wins both; no temporary array
    found = "NaN" if np.isnan(low) else "Inf" if finite and np.isinf([low, high]).any() else None
    if found:
        raise ModelError(f"initialiser {name!r} of node {node!r}: holds {found}, expected finite numbers")


def _parse(data: bytes, name: str) -> ModelProto:
    model = ModelProto()
    if not data:
        raise ModelError(f"{name}: 0 bytes, expected an ONNX model")
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{name}: {len(data)} bytes that aren't ONNX, or are cut off") from error
    return model


def _load_external(model: ModelProto, path: Path) -> None:
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: weights beside the model: {first_line(error)}") from error


def _refuse_external(model: ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"{name}: initialiser {tensor.name!r} lies in another file, expected a path to the model"
            )


def _check_header(model: ModelProto, name: str) -> None:
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"{name}: no graph: not an ONNX model, or cut off")
    if not model.graph.output:
        raise ModelError(f"{name}: the graph has no outputs: cut off?")
    opset, newest = standard_opset(model), onnx.defs.onnx_opset_version()
    if not model.opset_import:
        raise ModelError(f"{name}: says no opset, expected {OLDEST_OPSET} to {newest}: cut off?")
    if opset and not OLDEST_OPSET <= opset <= newest:
        raise ModelError(f"{name}: opset {opset}, expected {OLDEST_OPSET} to {newest}")


def first_line(error: BaseException) -> str:
    """The first line of a library's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
