"""A trained network as an ONNX file with exact zeros, checked against torch before it takes its place."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from prunus.errors import ExportError
from prunus.pruning.one_shot import LayerReport
from prunus.runtime.atomic import write_atomically
from prunus.training.shards import rank

BOUND = 1e-4  # largest difference over largest output
_OPSET = 18


def export_onnx(
    model: nn.Module, path: str | Path, inputs: Tensor | tuple[Tensor, ...] | None, report: "object | None" = None
) -> ModelProto:
    """Write `model` in evaluation mode; inputs are called x, x1, ..., outputs y, y1, ...; the batch is free.

    report: a PruneReport, for metadata_props. Only rank 0 writes. The model is in the mode it was when this returns.
    Raises ExportError: no inputs; torch can't export it; onnxruntime answers otherwise than torch by more than BOUND.
    """
    if inputs is None:
        raise ExportError(f"{path}: no example inputs, expected a batch to try the network with")
    if rank() != 0:
        return ModelProto()
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        proto, expected = _export(model, given)
    finally:
        for module, mode in training.items():
            module.training = mode
    _clean_zeros(proto)
    layers = getattr(report, "layers", ())
    if layers:
        _describe(proto, layers, float(getattr(report, "sparsity", 0.0)))
    _verify(proto, given, expected, str(path))
    write_atomically(Path(path), proto.SerializeToString())
    return proto


def _export(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[ModelProto, list[np.ndarray]]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    on_device = tuple(x.to(device) for x in inputs)
    with torch.no_grad():
        outputs = _flat(model(*on_device))
    names = [f"x{i or ''}" for i in range(len(inputs))]
    results = [f"y{i or ''}" for i in range(len(outputs))]
    axes = {name: {0: "batch"} for name, value in zip(names + results, [*inputs, *outputs], strict=True) if value.ndim}
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, on_device, stream,  # type: ignore[arg-type]
                input_names=names, output_names=results, dynamic_axes=axes,
                opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"{type(model).__name__}: torch can't export it: {str(error).splitlines()[0]}") from error
    return onnx.load_from_string(stream.getvalue()), [value.detach().cpu().numpy() for value in outputs]


def _flat(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _flat(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _flat(part)]
    return []


def _clean_zeros(model: ModelProto) -> None:
    """Zeros without a sign: a mask times a negative weight, and folded BatchNorm, make negative ones."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            if np.signbit(array[array == 0]).any():
                tensor.CopyFrom(numpy_helper.from_array(array + np.float32(0), tensor.name))


def _describe(model: ModelProto, layers: tuple[LayerReport, ...], sparsity: float) -> None:
    said = {
        layer.weight: {
            "layer": layer.name, "scheme": str(layer.scheme) if layer.scheme else None,
            "sparsity": round(layer.sparsity, 6), **({"note": layer.note} if layer.note else {}),
        }
        for layer in layers
    }  # fmt: skip
    schemes = sorted({str(layer.scheme) for layer in layers if layer.scheme})
    properties = {
        "prunus.scheme": ", ".join(schemes), "prunus.sparsity": f"{sparsity:.6f}",
        "prunus.layers": json.dumps(said, sort_keys=True),
    }  # fmt: skip
    onnx.helper.set_model_props(model, properties)


def _verify(model: ModelProto, inputs: tuple[Tensor, ...], expected: list[np.ndarray], where: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    known = {item.name for item in session.get_inputs()}
    feeds = {f"x{i or ''}": x.detach().cpu().numpy() for i, x in enumerate(inputs) if f"x{i or ''}" in known}
    for got, wanted in zip(session.run(None, feeds), expected, strict=False):
        scale = max(float(np.abs(wanted).max(initial=0)), 1e-12)
        error = float(np.abs(got - wanted).max(initial=0)) / scale
        if not error <= BOUND:
            raise ExportError(f"{where}: the exported file differs from torch by {error:.1e} of the largest output")
