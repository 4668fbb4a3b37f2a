"""A trained network as an ONNX file with exact zeros, checked against torch before it takes its place."""

import copy
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from torch import Tensor, nn

from prunus.errors import ExportError
from prunus.graph.normalise import STATED
from prunus.pruning.one_shot import LayerReport, mean_sparsity, write_metadata
from prunus.runtime.atomic import write_atomically
from prunus.runtime.session import onnxruntime_errors
from prunus.training.ports import Flat, leaves, ports, shaped_alike
from prunus.training.sequences import Way, is_recurrent, ways
from prunus.training.shards import rank

BOUND = 1e-4  # largest difference over largest output
_OPSET = 18
# by a network that is fed what it doesn't take; torch's OnnxExporterError is a RuntimeError
_RAISED = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
_HALVES = (torch.float16, torch.bfloat16)
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def export_onnx(
    model: nn.Module, path: str | Path, inputs: Tensor | tuple[Any, ...] | None, layers: Sequence[LayerReport] = ()
) -> ModelProto:
    """Write `model` in evaluation mode; inputs are called x, x1, ..., outputs y, y1, ..., and those in dicts by their
    keys; the batch is free, and with recurrent layers the time, where the file then answers as torch does at other
    sizes too. A network in half precision is written in float32, which all runtimes take and holds its weights exactly.

    inputs: a batch, or all arguments as a tuple; an argument may be a tuple or a dict of tensors itself. layers:
    what became of each, for metadata_props. Only rank 0 writes. The model is in the mode it was when this returns.
    Raises ExportError: no inputs; torch can't export it; onnxruntime answers otherwise than torch by more than BOUND.
    """
    if inputs is None:
        raise ExportError(f"{path}: no example inputs, expected a batch to try the network with")
    if rank() != 0:
        return ModelProto()
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with _eager(model):
            single, tried = _in_single(model, inputs if isinstance(inputs, tuple) else (inputs,))
            proto = _exported(single, tried, str(path))
    finally:
        for module, mode in training.items():
            module.training = mode
    if layers:
        schemes = ", ".join(sorted({str(layer.scheme) for layer in layers if layer.scheme}))
        write_metadata(proto, schemes, mean_sparsity(layers), layers)
    write_atomically(Path(path), proto.SerializeToString())
    return proto


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Without what torch.compile has put into a network, or around its parts: the exporter can't see through that."""
    compiled = {module: module._compiled_call_impl for module in model.modules() if module._compiled_call_impl}
    wrapped = [
        (module, name, child)
        for module in model.modules()
        for name, child in module._modules.items()
        if isinstance(getattr(child, "_orig_mod", None), nn.Module)
    ]
    for module in compiled:
        module._compiled_call_impl = None
    for module, name, child in wrapped:
        module._modules[name] = child._orig_mod  # type: ignore[union-attr,assignment]
    try:
        yield
    finally:
        for module, name, child in wrapped:
            module._modules[name] = child
        for module, call in compiled.items():
            module._compiled_call_impl = call


def _in_single(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    """The network and its inputs, or copies of both in float32 where some of its weights are in half precision."""
    if not any(tensor.dtype in _HALVES for tensor in (*model.parameters(), *model.buffers())):
        return model, inputs
    tensors = [tensor.float() if tensor.dtype in _HALVES else tensor for tensor in leaves(inputs)]
    return copy.deepcopy(model).float(), shaped_alike(inputs, tensors)


_Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


def _exported(model: nn.Module, inputs: tuple[Any, ...], where: str) -> ModelProto:
    """The file's contents, tried; with recurrent layers, as many axes are free as it answers right along."""

    def call(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return leaves(model(*shaped_alike(inputs, tuple(tensors))))

    *most, last = ways(model, call, _on_device(model, inputs)) if is_recurrent(model) else (None,)
    for way in most:
        with suppress(ExportError):
            return _tried(model, inputs, where, way)
    return _tried(model, inputs, where, last)


def _tried(model: nn.Module, inputs: tuple[Any, ...], where: str, way: Way | None) -> ModelProto:
    """Run with what it was made with, and at other sizes where axes are free."""
    proto, feeds, expected = _export(model, inputs, way)
    _clean_zeros(proto)
    _verify(proto, feeds, expected, where)
    if way is not None and way.trial:
        shapes = {name: list(value.shape) for name, value in feeds.items()}
        proto.metadata_props.add(key=STATED, value=json.dumps(shapes))
        _verify(proto, _arrays(tuple(feeds), way.trial), _arrays(tuple(expected), way.expected), where)
    return proto


def _on_device(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(tensor.detach().to(device) for tensor in leaves(inputs))


def _export(model: nn.Module, inputs: tuple[Any, ...], way: Way | None) -> tuple[ModelProto, _Arrays, _Arrays]:
    """The file's contents, what it was tried with, and what torch answered."""
    tensors = _on_device(model, inputs)
    structure = shaped_alike(inputs, tensors)
    name = type(model).__name__
    if not tensors:
        raise ExportError(f"{name}: example inputs hold no tensor, expected a batch to try the network with")
    try:
        with torch.no_grad():
            outputs = model(*structure)
    except _RAISED as error:
        raise ExportError(f"{name}: example inputs don't fit it: {_first_line(error)}") from error
    into, out_of = ports(inputs, "x"), ports(outputs, "y")
    if not out_of:
        raise ExportError(f"{name}: returns {type(outputs).__name__}, expected a tensor, or a tuple or dict of them")
    results = leaves(outputs)
    plain = len(structure) == len(tensors) and all(isinstance(value, Tensor) for value in structure)
    nested = not plain or not (isinstance(outputs, Tensor) or (type(outputs) is tuple and len(outputs) == len(results)))
    if way is None:
        axes = _batch_axes(model, inputs, tensors, (into, out_of), results)
    else:
        axes = {name: dict(free) for name, free in zip((*into, *out_of), way.inputs + way.outputs, strict=True)}
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Flat(model, inputs) if nested else model, tensors, stream,  # type: ignore[arg-type]
                input_names=list(into), output_names=list(out_of),
                dynamic_axes=axes, opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
    except _RAISED as error:
        raise ExportError(f"{name}: torch can't export it: {_first_line(error)}") from error
    proto = onnx.load_from_string(stream.getvalue())
    if nested:
        _rename(proto, Flat.PREFIX)
    return proto, _arrays(into, tensors), _arrays(out_of, results)


def _arrays(names: Sequence[str], tensors: Sequence[Tensor]) -> _Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}


def _batch_axes(
    model: nn.Module,
    inputs: tuple[Any, ...],
    tensors: Sequence[Tensor],
    names: tuple[Sequence[str], Sequence[str]],
    results: Sequence[Tensor],
) -> dict[str, dict[int, str]]:
    """Which axes are the batch: the first one of inputs, and of outputs the one that grows with it, as twice the batch
    shows. A network that can't take that has the first one of each."""
    into, out_of = names
    axes = {name: {0: "batch"} for name, tensor in zip(into, tensors, strict=True) if tensor.ndim}
    twice = tuple(torch.cat([tensor, tensor]) if tensor.ndim else tensor for tensor in tensors)
    try:
        with torch.no_grad():
            grown = leaves(model(*shaped_alike(inputs, twice)))
    except _RAISED:
        grown = ()
    for index, (name, result) in enumerate(zip(out_of, results, strict=True)):
        axis = 0 if result.ndim else None
        if len(grown) == len(results) and grown[index].ndim == result.ndim:
            sizes = zip(result.shape, grown[index].shape, strict=True)
            axis = next((at for at, (before, after) in enumerate(sizes) if before != after), None)
        if axis is not None:
            axes[name] = {axis: "batch"}
    return axes


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _rename(model: ModelProto, prefix: str) -> None:
    """Take `prefix` from the names of weights, which a module around the network has put there."""
    names = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith(prefix)}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            tensor.name = tensor.name.removeprefix(prefix)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = name.removeprefix(prefix)


def _clean_zeros(model: ModelProto) -> None:
    """Zeros without a sign: a mask times a negative weight, and folded BatchNorm, make negative ones."""
    constants = [
        attribute.t for node in model.graph.node if node.op_type == "Constant"
        for attribute in node.attribute if attribute.name == "value"
    ]  # fmt: skip
    for tensor in [*model.graph.initializer, *constants]:
        if tensor.data_type in _FLOATS:
            array = numpy_helper.to_array(tensor)
            if np.signbit(array[array == 0]).any():
                tensor.CopyFrom(numpy_helper.from_array(array + array.dtype.type(0), tensor.name))


def _verify(model: ModelProto, feeds: _Arrays, expected: _Arrays, where: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        known = {item.name for item in session.get_inputs()}
        found = session.run(list(expected), {name: value for name, value in feeds.items() if name in known})
    except onnxruntime_errors() as error:
        raise ExportError(f"{where}: onnxruntime can't run the exported file: {_first_line(error)}") from error
    for (name, wanted), got in zip(expected.items(), found, strict=True):
        if got.shape != wanted.shape:
            raise ExportError(f"{where}: {name} has shape {list(got.shape)} in the file, {list(wanted.shape)} in torch")
        wanted, got = wanted.astype(np.float64), got.astype(np.float64)
        scale = max(float(np.abs(wanted).max(initial=0)), 1e-12)
        off = float(np.abs(got - wanted).max(initial=0)) / scale
        if not off <= BOUND:
            raise ExportError(f"{where}: the exported file differs from torch by {off:.1e} of the largest output")
