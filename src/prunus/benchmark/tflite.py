"""ONNX to TensorFlow Lite for the operators of plain convolutional networks, so LiteRT is raced without TensorFlow.

Values of rank 4 become NHWC. Activations are fused into what they follow, as the official converter does; padding that
"SAME" can't say becomes a PAD of its own, which XNNPACK fuses into the convolution.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.benchmark.refusals import EngineRefusal

_SAME, _VALID = 0, 1
_NONE, _RELU, _RELU6 = 0, 1, 3
_FLOAT, _INT = 0, 2  # TensorType FLOAT32 and INT32


def convert(model: Path, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The bytes of a .tflite file that computes `model` for inputs of `shapes`, float32.

    Raises EngineRefusal: an operator or attribute outside of OPERATORS.
    """
    import flatbuffers

    writer = _Writer(model, shapes)
    for value in writer.proto.graph.input:
        if value.name not in writer.constants:
            writer.subgraph.inputs.append(writer.value(value.name))
    for node in writer.proto.graph.node:
        if node.op_type not in OPERATORS:
            raise writer.refuse(node, "no such operator here")
        if node.output[0] not in writer.places:
            OPERATORS[node.op_type](writer, node, writer.attributes(node))
    writer.subgraph.outputs = [writer.places[value.name] for value in writer.proto.graph.output]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(writer.model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@final
class _Writer:
    """A file being written. places: the tensor of each ONNX value."""

    def __init__(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        import onnx
        from ai_edge_litert import schema_py_generated as schema

        from prunus.graph.load import load_model

        self.schema, self.file = schema, model.name
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(load_model(model))
        for value in self.proto.graph.input:
            if value.name in shapes:
                kind = value.type.tensor_type.elem_type
                value.type.CopyFrom(onnx.helper.make_tensor_type_proto(kind, shapes[value.name]))
        for value in self.proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(self.proto).graph
        self.shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        self.producer = {name: node for node in self.proto.graph.node for name in node.output}
        for node in self.proto.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.model, self.subgraph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.subgraph], []
        self.model.buffers = [schema.BufferT()]
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []
        self.places: dict[str, int] = {}

    def refuse(self, node: Any, reason: str) -> EngineRefusal:
        return EngineRefusal(f"litert: {self.file}: {node.op_type} {node.name!r}: {reason}")

    def attributes(self, node: Any) -> dict[str, Any]:
        import onnx

        return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def tensor(self, shape: tuple[int, ...], array: NDArray[Any] | None = None) -> int:
        """A new tensor, of `array`'s values where given."""
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = list(shape), _INT if array is not None and array.dtype == np.int32 else _FLOAT
        tensor.name, tensor.buffer = f"t{len(self.subgraph.tensors)}", 0
        if array is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def constant(self, array: NDArray[Any]) -> int:
        return self.tensor(array.shape, array)

    def value(self, name: str) -> int:
        """The tensor of an ONNX value, NHWC where its rank is 4."""
        if name not in self.places:
            array = self.constants.get(name)
            if array is not None:
                array = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
                self.places[name] = self.constant(array)
            else:
                self.places[name] = self.tensor(_nhwc(self.shapes[name]))
        return self.places[name]

    def operator(self, name: str, inputs: list[int], outputs: list[int], options: Any = None, version: int = 1) -> None:
        """Append an operator; `options`: an object of the schema, or None."""
        code = getattr(self.schema.BuiltinOperator, name)
        codes = self.model.operatorCodes
        index = next((i for i, known in enumerate(codes) if known.builtinCode == code), len(codes))
        if index == len(codes):
            entry = self.schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
            codes.append(entry)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = index, inputs, outputs
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.subgraph.operators.append(operator)

    def fused(self, node: Any) -> tuple[int, int]:
        """The activation that follows `node` and can be computed with it, and the tensor that then holds the result."""
        name, readers = node.output[0], self.readers.get(node.output[0], [])
        outputs = {value.name for value in self.proto.graph.output}
        if len(readers) == 1 and name not in outputs and (activation := self.activation(readers[0])) != _NONE:
            return activation, self.value(readers[0].output[0])
        return _NONE, self.value(name)

    def activation(self, node: Any) -> int:
        """The TFLite activation that `node` is; _NONE for any other."""
        if node.op_type == "Relu":
            return _RELU
        if node.op_type != "Clip":
            return _NONE
        bounds = [self.constants[name].item() if name in self.constants else None for name in node.input[1:3]]
        return _RELU6 if bounds == [0, 6] else _NONE

    def padded(self, node: Any, attributes: dict[str, Any], window: tuple[int, int]) -> tuple[int, int]:
        """The input of a convolution or pooling, padded beforehand where needed, and the padding that is left to it."""
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or attributes.get("ceil_mode", 0):
            raise self.refuse(node, "auto_pad or ceil_mode")
        x, pads = self.value(node.input[0]), list(attributes.get("pads", [0, 0, 0, 0]))
        if not any(pads):
            return x, _VALID
        centred = all(pad == (n - 1) // 2 for pad, n in zip(pads, window * 2, strict=True))
        if centred and all(n % 2 for n in window) and list(attributes.get("strides", [1, 1])) == [1, 1]:
            return x, _SAME
        top, left, bottom, right = pads
        one, channels, h, w = self.shapes[node.input[0]]
        padded = self.tensor((one, h + top + bottom, w + left + right, channels))
        amounts = self.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        before = self.producer.get(node.input[0])
        if node.op_type == "MaxPool" and (before is None or self.activation(before) == _NONE):
            lowest = self.constant(np.array([np.finfo(np.float32).min], np.float32))
            self.operator("PADV2", [x, amounts, lowest], [padded], self.schema.PadV2OptionsT())
        else:  # zeros; below the least of what an activation gives they are as good for a maximum
            self.operator("PAD", [x, amounts], [padded], self.schema.PadOptionsT())
        return padded, _VALID


def _nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _conv(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    weight = writer.constants.get(node.input[1])
    if weight is None or weight.ndim != 4:
        raise writer.refuse(node, "weights that aren't a constant of rank 4")
    outputs, per_group, kh, kw = weight.shape
    group, channels = attributes.get("group", 1), writer.shapes[node.input[0]][1]
    depthwise = group == channels and per_group == 1
    if group != 1 and not depthwise:
        raise writer.refuse(node, "groups")
    dilations, strides = attributes.get("dilations", [1, 1]), attributes.get("strides", [1, 1])
    window = ((kh - 1) * dilations[0] + 1, (kw - 1) * dilations[1] + 1)
    x, padding = writer.padded(node, attributes, window)
    bias = writer.constants[node.input[2]] if len(node.input) > 2 else np.zeros(outputs, np.float32)
    if depthwise and channels > 1:
        options, name = writer.schema.DepthwiseConv2DOptionsT(), "DEPTHWISE_CONV_2D"
        options.depthMultiplier = outputs // channels
        kernel = writer.constant(weight.transpose(1, 2, 3, 0))
    else:
        options, name = writer.schema.Conv2DOptionsT(), "CONV_2D"
        kernel = writer.constant(weight.transpose(0, 2, 3, 1))
    options.padding, (options.strideH, options.strideW) = padding, strides
    options.dilationHFactor, options.dilationWFactor = dilations
    options.fusedActivationFunction, y = writer.fused(node)
    writer.operator(name, [x, kernel, writer.constant(bias)], [y], options)


def _gemm(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    weight = writer.constants.get(node.input[1])
    scales = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0), attributes.get("transA", 0))
    if weight is None or scales != (1.0, 1.0, 0):
        raise writer.refuse(node, "weights that aren't constant, or alpha, beta or transA")
    weight = weight if attributes.get("transB", 0) else weight.T
    bias = writer.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    options = writer.schema.FullyConnectedOptionsT()
    options.fusedActivationFunction, y = writer.fused(node)
    inputs = [writer.value(node.input[0]), writer.constant(weight), writer.constant(bias.reshape(-1))]
    writer.operator("FULLY_CONNECTED", inputs, [y], options)


def _max_pool(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    if any(n != 1 for n in attributes.get("dilations", ())) or len(node.output) > 1:
        raise writer.refuse(node, "dilations or indices")
    window = tuple(attributes["kernel_shape"])
    x, padding = writer.padded(node, attributes, window)
    options = writer.schema.Pool2DOptionsT()
    options.padding, (options.filterHeight, options.filterWidth) = padding, window
    options.strideH, options.strideW = attributes.get("strides", [1, 1])
    options.fusedActivationFunction = _NONE
    writer.operator("MAX_POOL_2D", [x], [writer.value(node.output[0])], options)


def _global_average(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    options = writer.schema.ReducerOptionsT()
    options.keepDims = True
    axes = writer.constant(np.array([1, 2], np.int32))
    writer.operator("MEAN", [writer.value(node.input[0]), axes], [writer.value(node.output[0])], options)


def _flatten(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    if attributes.get("axis", 1) != 1:
        raise writer.refuse(node, "an axis other than 1")
    x, shape = writer.value(node.input[0]), writer.shapes[node.input[0]]
    if len(shape) == 4 and shape[2:] != (1, 1):  # ONNX flattens channels first
        order = writer.constant(np.array([0, 3, 1, 2], np.int32))
        turned = writer.tensor(shape)
        writer.operator("TRANSPOSE", [x, order], [turned], writer.schema.TransposeOptionsT())
        x = turned
    options = writer.schema.ReshapeOptionsT()
    options.newShape = list(writer.shapes[node.output[0]])
    sizes = writer.constant(np.array(options.newShape, np.int32))
    writer.operator("RESHAPE", [x, sizes], [writer.value(node.output[0])], options)


def _add(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    a, b = (writer.shapes.get(name) for name in node.input)
    if a is None or a != b:
        raise writer.refuse(node, "shapes that differ")
    options = writer.schema.AddOptionsT()
    options.fusedActivationFunction, y = writer.fused(node)
    writer.operator("ADD", [writer.value(name) for name in node.input], [y], options)


def _activate(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    kind = writer.activation(node)
    if kind == _NONE:
        raise writer.refuse(node, "bounds other than 0 and 6")
    name = "RELU" if kind == _RELU else "RELU6"
    writer.operator(name, [writer.value(node.input[0])], [writer.value(node.output[0])])


def _softmax(writer: _Writer, node: Any, attributes: dict[str, Any]) -> None:
    rank = len(writer.shapes[node.input[0]])
    if rank == 4 or attributes.get("axis", -1) not in (-1, rank - 1):
        raise writer.refuse(node, "an axis other than the last")
    options = writer.schema.SoftmaxOptionsT()
    options.beta = 1.0
    writer.operator("SOFTMAX", [writer.value(node.input[0])], [writer.value(node.output[0])], options)


OPERATORS: Mapping[str, Callable[[_Writer, Any, dict[str, Any]], None]] = {
    "Conv": _conv, "Gemm": _gemm, "MaxPool": _max_pool, "GlobalAveragePool": _global_average, "Flatten": _flatten,
    "Add": _add, "Softmax": _softmax, "Relu": _activate, "Clip": _activate,
}  # fmt: skip
