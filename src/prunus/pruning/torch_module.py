"""An ONNX file as a differentiable torch module.

It is the Graph, operator by operator, recorded as a `torch.fx.GraphModule`: straight code that torch can print, copy,
compile and train. What the graph folds stays folded: a BatchNormalization is part of the weights before it (or a scale
and a shift per channel), so training mode and evaluation mode are one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from prunus.errors import UnsupportedError
from prunus.graph.ir import Graph
from prunus.graph.read import read
from prunus.pruning.torch_ops import FUNCTIONS, REFUSED, Context, rounded

# attributes of nodes that name Parameters; the constants of others are buffers
LEARNED = ("weight", "bias", "slope", "scale", "shift", "recurrence", "recurrence_bias")
SEVERAL = ("split", "recurrent")  # operators of several outputs


def to_module(
    source: str | Path | bytes | onnx.ModelProto | Graph, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> fx.GraphModule:
    """A module that computes what the model does, in float32, with gradients to inputs and weights.

    It takes the inputs in order and returns the output, or a tuple where there are several. A symbolic leading
    dimension may be fed at any size where the graph holds for any (`Graph.batch`); `input_shapes` as `prunus.compile`.

    Weights, biases, slopes, scales and shifts are Parameters, other constants are buffers. Their names are those of the
    ONNX file, a dot being a submodule; one that can't be an attribute (`forward`, or `a` beside `a.b`) has its dots
    replaced by "/" and perhaps a number behind it. Folded ones are called after the value that they make, as
    `relu1.weight`; `_table0` and so on are the indices and divisors of resizing, padding and pooling. Matrices are
    outputs first, whatever the file's layout. Values that a file in QDQ form rounds are rounded, with the gradient of
    the identity.

    Raises UnsupportedError: an operator has no row in FUNCTIONS; names operator and node. ModelError, FeedError: as
    `prunus.graph.read.read`.
    """
    graph = source if isinstance(source, Graph) else read(source, input_shapes, fallback=False)
    return to_module_with_places(graph)[0]


def to_module_with_places(graph: Graph) -> tuple[fx.GraphModule, dict[str, str]]:
    """The module of `to_module`, and the names that the graph's constants have in it: dotted paths.

    Raises UnsupportedError: as `to_module`.
    """
    for node in graph.nodes:
        if node.op not in FUNCTIONS:
            reason = REFUSED.get(node.op, "no function for it")
            raise UnsupportedError(f"node {node.name!r}: operator {node.op} has no torch form: {reason}")
    root = nn.Module()
    places = _place_constants(root, graph)
    code = _record(graph, root, places)
    return fx.GraphModule(root, code, class_name="Network"), places


def _record(graph: Graph, root: nn.Module, places: Mapping[str, str]) -> fx.Graph:
    """The nodes as torch calls; `root` gets the tables that they need, each once."""
    code, tables = fx.Graph(), dict[str, NDArray[Any]]()
    tracer = fx.proxy.GraphAppendingTracer(code)

    def weight(name: str) -> Any:
        return fx.Proxy(code.get_attr(places[name]), tracer)

    def table(array: NDArray[Any]) -> Any:
        name = next((key for key, known in tables.items() if _same(known, array)), None)
        if name is None:
            name = _free(root, f"_table{len(tables)}")
            tables[name] = array
            root.register_buffer(name, torch.from_numpy(np.array(array)))
        return fx.Proxy(code.get_attr(name), tracer)

    context = Context(graph, weight, table)
    values: dict[str, Any] = {}
    for i, name in enumerate(graph.inputs):
        values[name] = fx.Proxy(code.placeholder(f"input_{i}"), tracer)
    for node in graph.nodes:
        made = FUNCTIONS[node.op](node, context, *(values[name] for name in node.inputs))
        for i, name in enumerate(node.outputs):
            value = made[i] if node.op in SEVERAL else made
            form = graph.values[name].format
            values[name] = value if form is None else rounded(value, form)
    results = tuple(values[name].node for name in graph.outputs)
    code.output(results[0] if len(results) == 1 else results)
    return code


def _place_constants(root: nn.Module, graph: Graph) -> dict[str, str]:
    """Register the graph's constants under `root`; dotted path of each by its name.

    A weight that several nodes share is one constant per node in the graph, told apart by a number: here it is one
    parameter again.
    """
    learned = {node.attrs[key] for node in graph.nodes for key in LEARNED if node.attrs.get(key) is not None}
    places: dict[str, str] = {}
    for name, array in graph.constants.items():
        first, mark, number = name.rpartition("#")
        if mark and number.isdecimal() and first in places and _same(graph.constants[first], array):
            places[name] = places[first]
            continue
        tensor = torch.from_numpy(np.array(array, np.float32))
        places[name] = _place(root, name, nn.Parameter(tensor) if name in learned else tensor)
    return places


def _place(root: nn.Module, name: str, tensor: Tensor) -> str:
    *folders, leaf = name.split(".")
    module, path = root, name
    for folder in folders:
        child = module._modules.get(folder)
        if child is None:
            if _taken(module, folder):
                break
            child = nn.Module()
            module.add_module(folder, child)
        module = child
    else:
        if not _taken(module, leaf):
            _register(module, leaf, tensor)
            return path
    path = _free(root, name.replace(".", "/"))
    _register(root, path, tensor)
    return path


def _register(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor)


def _taken(module: nn.Module, name: str) -> bool:
    return not name or hasattr(module, name) or hasattr(fx.GraphModule, name)


def _free(root: nn.Module, name: str) -> str:
    candidate, n = name or "constant", 1
    while _taken(root, candidate):
        n += 1
        candidate = f"{name}#{n}"
    return candidate


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
