"""Which parameter of the torch form of an ONNX file a weight of the file is, and how changes go back into the file.

The torch form has scales behind a layer, as those of BatchNormalization, folded into its weights. Such a parameter is
the file's weight times a factor per filter; what is written back is divided by it, so that the file keeps its nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from prunus.graph.ir import Graph
from prunus.pruning.onnx_weights import Weight, attribute, read, uses, write

FOLDED = 1e-5  # largest difference from weight times factor, relative to the largest weight
Arrays = NDArray[Any]


@final
@dataclass(frozen=True, eq=False)
class Tie:
    """A weight of the file and its parameter. scale: float64[o], parameter = weight * scale; bias: the parameter of the
    layer's bias, None where it has none or the file has no place for a change of it."""

    weight: Weight
    parameter: str
    scale: NDArray[np.float64]
    bias: str | None


def tie(
    readers: Sequence[Weight],
    given: NDArray[np.float64],
    graph: Graph,
    places: Mapping[str, str],
    names: Mapping[str, str],
    model: ModelProto,
) -> Tie | str:
    """The tie of a weight, given all its readers and its values in the dense file, or why there is none.

    names: of the graph's nodes, by the first output of the file's.
    """
    layers = {n.name: n for n in graph.nodes if n.op in ("conv", "gemm")}
    found = [layers.get(names.get(reader.node.output[0], "")) for reader in readers]
    paths = {places[node.attrs["weight"]] for node in found if node is not None}
    if len(paths) != 1 or None in found:
        return "not a layer of its own in the torch form" if len(paths) < 2 else "shared by layers with other scales"
    node = found[0]
    assert node is not None
    folded = graph.constants[node.attrs["weight"]].astype(np.float64)
    if len(given) != len(folded) or given.size != folded.size:
        return "folded with other weights"
    rows, wanted = given.reshape(len(given), -1), folded.reshape(len(given), -1)
    squares = (rows * rows).sum(1)
    scale = np.divide((rows * wanted).sum(1), squares, out=np.ones(len(rows)), where=squares > 0)
    if np.abs(rows * scale[:, None] - wanted).max(initial=0) > FOLDED * np.abs(wanted).max(initial=0):
        return "folded with other weights"
    bias = node.attrs["bias"]
    biases = [places[other.attrs["bias"]] for other in layers.values() if other.attrs["bias"] is not None]
    alone = bias is not None and len(readers) == 1 and biases.count(places[bias]) == 1
    if not alone or _bias_slot(readers[0], model) is None:
        return Tie(readers[0], paths.pop(), scale, None)
    return Tie(readers[0], paths.pop(), scale, places[bias])


def write_weight(tied: Tie, values: Arrays) -> None:
    """Put new values of the parameter into the file; exact zeros stay so."""
    given = read(tied.weight)
    alive = tied.scale != 0
    rows = np.asarray(values, np.float64).reshape(len(given), -1)
    divided = np.divide(rows, tied.scale[:, None], out=np.zeros(rows.shape), where=alive[:, None])
    kept = np.where(alive[:, None], divided, given.reshape(rows.shape) * (rows != 0))
    write(tied.weight, (kept + 0.0).reshape(given.shape).astype(given.dtype), tied.weight.tensor)


def write_bias(tied: Tie, change: Arrays, model: ModelProto) -> None:
    """Add a change of the bias parameter to what the file has for it: the layer's bias, or the Add behind it."""
    slot = _bias_slot(tied.weight, model)
    assert slot is not None
    node, index = slot
    factor = tied.scale.copy()
    if tied.weight.node.op_type == "Gemm":
        factor *= float(attribute(node, "beta", 1.0)) / float(attribute(node, "alpha", 1.0))
    raw = np.divide(np.asarray(change, np.float64), factor, out=np.zeros(len(factor)), where=factor != 0)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    before = tensors.get(node.input[index]) if index < len(node.input) else None
    dtype = numpy_helper.to_array(before if before is not None else tied.weight.tensor).dtype
    if before is not None and uses(model)[before.name] == 1 and before.dims[-1:] == [len(raw)]:
        old = numpy_helper.to_array(before)
        before.CopyFrom(numpy_helper.from_array((old + raw.reshape(old.shape)).astype(dtype), before.name))
        return
    old = numpy_helper.to_array(before).astype(np.float64).ravel() if before is not None else np.zeros(1)
    name = f"{tied.weight.name}.bias"
    taken = {*uses(model), *tensors}
    while name in taken:
        name += "_"
    model.graph.initializer.append(numpy_helper.from_array((old + raw).astype(dtype), name))
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name


def _bias_slot(weight: Weight, model: ModelProto) -> tuple[NodeProto, int] | None:
    """The node and the input that are the layer's bias, be it absent yet; None where there is no such place."""
    node = weight.node
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if node.op_type in ("Conv", "Gemm"):
        given = node.input[2] if len(node.input) > 2 else ""
        if (given and given not in constants) or (not given and model.ir_version < 4):
            return None
        return (node, 2) if attribute(node, "beta", 1.0) != 0 else None
    readers = [other for other in model.graph.node if node.output[0] in other.input]
    if uses(model)[node.output[0]] != 1 or len(readers) != 1 or readers[0].op_type != "Add":
        return None
    index = 1 - list(readers[0].input).index(node.output[0])
    tensor: TensorProto | None = constants.get(readers[0].input[index])
    o = weight.tensor.dims[1 if weight.transposed else 0]
    return (readers[0], index) if tensor is not None and list(tensor.dims[-1:]) == [o] == [_size(tensor)] else None


def _size(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims))
