"""The prunable weights of an ONNX model, each as a view with filters first that can be read and
written back.
"""

from collections import ChainMap, Counter
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from prunus.errors import ModelError

# operator -> inputs that are weights
SLOTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "Gemm": (1,),
    "MatMul": (1, 0),
    "GRU": (1, 2),
    "LSTM": (1, 2),
}
GATES = {"GRU": 3, "LSTM": 4}
LAYERS = (*SLOTS, "ConvTranspose", "RNN")  # what a rule may name, prunable or not
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
Tensors = MutableMapping[str, TensorProto]


@final
@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a layer, by the place where it is read.

    name: of the initialiser or of the Constant's output. reader, slot: the input that reads it,
    through Transpose and Identity nodes if need be. transposed: [inputs, outputs] in the file.
    """

    layer: str
    name: str
    node: NodeProto
    tensor: TensorProto
    reader: NodeProto
    slot: int
    transposed: bool


def layer_name(node: NodeProto) -> str:
    """The node's name, or its first output's where it has none."""
    return node.name or node.output[0]


def graphs(graph: GraphProto, outer: ChainMap[str, TensorProto] | None = None) -> Iterator[tuple[GraphProto, Tensors]]:
    """The graph and those in its attributes (bodies of If, Loop), each with its constants."""
    own = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and [a.name for a in node.attribute] == ["value"]:
            own[node.output[0]] = node.attribute[0].t
    seen = outer.new_child(own) if outer is not None else ChainMap(own)
    yield graph, seen
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                yield from graphs(body, seen)


def weights(model: ModelProto) -> Iterator[Weight]:
    """Every read of a constant matrix or kernel by a Conv, Gemm, MatMul, GRU or LSTM, in the order
    of nodes.
    """
    counts = uses(model)
    for graph, tensors in graphs(model.graph):
        makers = {output: node for node in graph.node for output in node.output}
        for node in graph.node:
            found = [
                weight
                for slot in SLOTS.get(node.op_type, ())
                if node.domain in ("", "ai.onnx") and slot < len(node.input)
                if (weight := _resolve(node, slot, tensors, makers, counts)) is not None
            ]
            # both sides of a MatMul constant: nothing flows, there is nothing to prune
            yield from [] if node.op_type == "MatMul" and len(found) == 2 else found


def _resolve(
    node: NodeProto,
    slot: int,
    tensors: Tensors,
    makers: dict[str, NodeProto],
    counts: Counter[str],
) -> Weight | None:
    flipped, reader, at = False, node, slot
    name = node.input[slot]
    while name not in tensors and name in makers:
        maker = makers[name]
        if counts[name] != 1:
            return None
        if maker.op_type == "Transpose":
            if list(attribute(maker, "perm", [1, 0])) != [1, 0]:
                return None
            flipped = not flipped
        elif maker.op_type != "Identity":
            return None
        reader, at, name = maker, 0, maker.input[0]
    if name not in tensors:
        return None
    tensor = tensors[name]
    if node.op_type == "MatMul" and len(tensor.dims) != 2:
        return None
    inputs_first = node.op_type == "MatMul" and slot == 1
    inputs_first |= node.op_type == "Gemm" and not attribute(node, "transB", 0)
    return Weight(layer_name(node), name, node, tensor, reader, at, inputs_first != flipped)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or the default."""
    for given in node.attribute:
        if given.name == name:
            return onnx.helper.get_attribute_value(given)
    return default


def group(node: NodeProto) -> int:
    """The number of groups of a convolution, else 1."""
    return int(attribute(node, "group", 1))


def n_stacked(weight: Weight) -> int:
    """How many matrices of the same height are stacked as rows: gates times directions, of a recurrent layer."""
    return GATES.get(weight.node.op_type, 1) * (weight.tensor.dims[0] if weight.node.op_type in GATES else 1)


def read(weight: Weight) -> NDArray[Any]:
    """float[o, i, ...]: filters first; gates and directions of GRU and LSTM stacked as rows.

    Raises ModelError: damaged data, NaN or infinity.
    """
    if weight.tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(
            f"initialiser {weight.name}: data in another file that was not loaded, "
            "expected a path, or onnx.load with its external data"
        )
    try:
        array = numpy_helper.to_array(weight.tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(f"initialiser {weight.name}: damaged data: {error}") from error
    if not np.isfinite(array).all():
        bad = "NaN" if np.isnan(array).any() else "an infinity"
        raise ModelError(f"initialiser {weight.name}: contains {bad}, expected finite weights")
    if weight.node.op_type in GATES:
        return array.reshape(-1, array.shape[-1])
    return array.T if weight.transposed else array


def write(weight: Weight, array: NDArray[Any], tensor: TensorProto) -> None:
    """Put an array as `read` gives it into `tensor`, in the file's layout and dtype."""
    array = array.T if weight.transposed else array
    shaped = np.ascontiguousarray(array).reshape(tuple(weight.tensor.dims))
    tensor.CopyFrom(numpy_helper.from_array(shaped, tensor.name or weight.name))


def uses(model: ModelProto) -> Counter[str]:
    """How often each name is read, by nodes of any graph or as an output."""
    counts: Counter[str] = Counter()
    for graph, _ in graphs(model.graph):
        counts.update(name for node in graph.node for name in node.input)
        counts.update(output.name for output in graph.output)
    return counts
