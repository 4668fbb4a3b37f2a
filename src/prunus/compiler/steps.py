"""What in a recurrent network grows with the number of steps: found by reading the model at other numbers of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from prunus.errors import FeedError, ModelError, UnsupportedError
from prunus.graph.ir import Graph
from prunus.runtime.program import Shape, Steps
from prunus.runtime.steps import grown

FURTHER = (1, 7)  # steps: what grows evenly does so for both
Shapes = Mapping[str, Shape]
Again = Callable[[Shapes], Graph]


def find_steps(proto: onnx.ModelProto, graph: Graph, shapes: Shapes, again: Again) -> Steps | None:
    """How `graph`, which `again` makes of a model at other input shapes, grows with its steps; it was made at `shapes`.
    None where it doesn't evenly, or the model fixes the number."""
    if graph.batch or not any(node.op == "recurrent" for node in graph.nodes):
        return None
    if any(node.op == "onnxruntime" for node in graph.nodes):
        return None
    return next((found for axes in _free(proto, shapes) if (found := _steps(graph, shapes, axes, again))), None)


def _free(proto: onnx.ModelProto, shapes: Shapes) -> list[dict[str, int]]:
    """Axes of inputs that may change together: those of one name."""
    axes: dict[Any, dict[str, int]] = {}
    for port in proto.graph.input:
        for axis, dim in enumerate(port.type.tensor_type.shape.dim if port.name in shapes else ()):
            if dim.dim_value <= 0:
                axes.setdefault(dim.dim_param or (port.name, axis), {})[port.name] = axis
    return list(axes.values())


def _steps(graph: Graph, shapes: Shapes, axes: Mapping[str, int], again: Again) -> Steps | None:
    planned = {shapes[name][axis] for name, axis in axes.items()}
    if len(planned) != 1:
        return None
    (n,) = planned

    def at(steps: int) -> Graph | None:
        fed = {name: tuple(steps if axes.get(name) == i else k for i, k in enumerate(s)) for name, s in shapes.items()}
        try:
            return again(fed)
        except (FeedError, ModelError, UnsupportedError):
            return None

    near = at(n + FURTHER[0])
    found = near and _growth(graph, near, {name: axis for name, axis in axes.items() if name in graph.inputs}, n)
    if not found or not _holds(found, graph, at(n + FURTHER[1]), n + FURTHER[1]):
        return None
    if n > 2 and _holds(found, graph, at(2), 2):
        found = replace(found, least=2)
    ones = at(1) if found.least == 2 else None
    if ones is not None and all(ones.values[k].shape == _shape(found, graph, k, 1) for k in _ports(graph)):
        return replace(found, least=1)
    return found


def _growth(graph: Graph, other: Graph, inputs: Mapping[str, int], n: int) -> Steps | None:
    """What grows from `graph`, of `n` steps, to `other`, of one more; None where they differ otherwise, or the axis
    isn't that of steps."""
    if not _alike(graph, other):
        return None
    tensors = {k: _difference(value.shape, other.values[k].shape) for k, value in graph.values.items()}
    attrs = {}
    for node, longer in zip(graph.nodes, other.nodes, strict=True):
        if node.op == "recurrent":
            x = tensors[node.inputs[0]]
            if x is None or x[0] != 1 or any(x[1:]):
                return None
        changed = {key: value for key, value in node.attrs.items() if value != longer.attrs[key]}
        by = {key: _difference(value, longer.attrs[key]) for key, value in changed.items()}
        if any(value is None for value in by.values()):
            return None
        if by:
            attrs[node.name] = by
    if any(by is None for by in tensors.values()):
        return None
    return Steps(n, n, inputs, {name: by for name, by in tensors.items() if by and any(by)}, attrs)


def _holds(found: Steps, graph: Graph, other: Graph | None, n: int) -> bool:
    """Is `other`, of `n` steps, what the growth of `graph` says?"""
    if other is None or not _alike(graph, other):
        return False
    if any(other.values[name].shape != _shape(found, graph, name, n) for name in graph.values):
        return False
    more = n - found.planned
    for node, there in zip(graph.nodes, other.nodes, strict=True):
        by = found.attrs.get(node.name, {})
        mine = {key: grown(value, by[key], more) if key in by else value for key, value in node.attrs.items()}
        if mine != dict(there.attrs):
            return False
    return True


def _shape(found: Steps, graph: Graph, name: str, n: int) -> Shape:
    shape = graph.values[name].shape
    return tuple(grown(shape, found.tensors[name], n - found.planned)) if name in found.tensors else shape


def _ports(graph: Graph) -> Iterable[str]:
    return (*graph.inputs, *graph.outputs)


def _alike(graph: Graph, other: Graph) -> bool:
    """The same nodes on the same values and constants, shapes and attributes aside."""
    if (graph.inputs, graph.outputs) != (other.inputs, other.outputs) or graph.values.keys() != other.values.keys():
        return False
    if len(graph.nodes) != len(other.nodes) or graph.constants.keys() != other.constants.keys():
        return False
    for a, b in zip(graph.nodes, other.nodes, strict=True):
        if (a.op, a.name, a.inputs, a.outputs, set(a.attrs)) != (b.op, b.name, b.inputs, b.outputs, set(b.attrs)):
            return False
    return all(np.array_equal(array, other.constants[name]) for name, array in graph.constants.items())


def _difference(a: Any, b: Any) -> Any:
    """How much greater the numbers in `b` are, in lists as they are; None where something else differs."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        parts = [_difference(x, y) for x, y in zip(a, b, strict=True)]
        return None if any(part is None for part in parts) else tuple(parts)
    if isinstance(a, int) and isinstance(b, int):
        return b - a
    return 0 if a == b else None
