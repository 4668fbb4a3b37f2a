"""Passes on the graph, in the order in which they run. Each gives a graph that computes the same with fewer nodes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunus.graph.ir import Activation, Graph, Node, consumers, fresh, names_kept, producers
from prunus.graph.movement import join_directions, merge_reshapes
from prunus.graph.tidy import tidy

LAYERS = ("conv", "conv_transpose", "gemm")


def fuse(graph: Graph) -> Graph:
    """All passes."""
    for step in PASSES:
        graph = step(graph)
    return graph


def skip_identities(graph: Graph) -> Graph:
    """Readers of an identity read its input; an identity stays that makes an output of the graph, or what a partition
    reads."""
    names: dict[str, str] = {}
    kept = names_kept(graph)
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
        if node.op == "identity" and node.outputs[0] not in kept:
            names[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    return tidy(replace(graph, nodes=tuple(nodes)))


def gate_activations(graph: Graph) -> Graph:
    """x * sigmoid(x) is silu, x * hard_sigmoid(x) hard_swish where its slope is 1/6."""
    made, readers = producers(graph), consumers(graph)
    nodes = []
    for node in graph.nodes:
        kind = _gate(node, graph, made, readers)
        if kind:
            act, x = kind
            nodes.append(Node("activation", node.name, (x,), node.outputs, {"activation": act, "slope": None}))
        else:
            nodes.append(node)
    return tidy(replace(graph, nodes=tuple(nodes)))


def _gate(
    node: Node, graph: Graph, made: dict[str, Node], readers: dict[str, list[Node]]
) -> tuple[Activation, str] | None:
    if node.op != "binary" or node.attrs["function"] != "mul" or len(node.inputs) != 2:
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        source = made.get(gate)
        if source is None or source.op != "activation" or source.inputs != (x,) or len(readers[gate]) > 1:
            continue
        act: Activation = source.attrs["activation"]
        if act.kind == "sigmoid":
            return Activation("silu"), x
        if act.kind == "hard_sigmoid" and np.allclose(act.params, (1 / 6, 0.5), rtol=1e-6):
            return Activation("hard_swish"), x
    return None


def fold_pads(graph: Graph) -> Graph:
    """Zero padding of rows and columns goes into the convolution, or the mean that counts padding, behind it."""

    def merge(pad: Node, node: Node) -> Node | None:
        both = pad.attrs["pads"]
        spatial = len(both) == 4 and not any(p for pair in both[:2] for p in pair)
        if not spatial or pad.attrs["mode"] != "constant" or pad.attrs["value"] != 0:
            return None
        takes = node.op == "conv" or (node.op == "avg_pool" and node.attrs["count_include_pad"])
        if not takes or node.inputs[0] != pad.outputs[0] or len(node.inputs) > 1:
            return None
        (top, bottom), (left, right) = both[2:]
        t, le, b, r = node.attrs["pads"]
        pads = (t + top, le + left, b + bottom, r + right)
        return replace(node, inputs=pad.inputs, attrs={**node.attrs, "pads": pads})

    return _merge_into_reader(graph, "pad", merge)


def fold_flattening(graph: Graph) -> Graph:
    """A matrix product behind a flattening reads the feature map itself."""

    def merge(flatten: Node, node: Node) -> Node | None:
        before, after = (graph.values[name].shape for name in (flatten.inputs[0], flatten.outputs[0]))
        flat = len(before) == 4 and len(after) == 2 and before[0] == after[0] and before[3] < after[1]
        if not flat or node.op != "gemm" or node.inputs[0] != flatten.outputs[0]:
            return None
        return replace(node, inputs=(*flatten.inputs, *node.inputs[1:]))

    return _merge_into_reader(graph, "reshape", merge)


def fold_scale_shift(graph: Graph) -> Graph:
    """BatchNorm, and arithmetic with a constant per channel, goes into the weights and bias of the layer before it, or
    into the scale and shift before it."""
    constants = dict(graph.constants)

    def merge(first: Node, node: Node) -> Node | None:
        scale, shift = constants[node.attrs["scale"]], constants[node.attrs["shift"]]
        name = node.outputs[0]
        if first.op == "scale_shift":
            both = {
                "scale": _keep(constants, f"{name}.scale", constants[first.attrs["scale"]] * scale),
                "shift": _keep(constants, f"{name}.shift", constants[first.attrs["shift"]] * scale + shift),
            }
            return replace(first, outputs=node.outputs, attrs=both)
        if not _open(first) or (first.op == "gemm" and len(graph.values[name].shape) != 2):
            return None
        weight, bias = first.attrs["weight"], first.attrs["bias"]
        if not (scale == 1).all():
            weight = _keep(constants, f"{name}.weight", _scaled(constants[weight], scale, first))
        before = constants[bias] if bias is not None else np.zeros(len(scale), np.float32)
        bias = _keep(constants, f"{name}.bias", (before * scale + shift).astype(np.float32))
        return replace(first, outputs=node.outputs, attrs={**first.attrs, "weight": weight, "bias": bias})

    graph = _merge_into_maker(graph, lambda n: n.op == "scale_shift", (*LAYERS, "scale_shift"), merge)
    return tidy(replace(graph, constants=constants))


def _keep(constants: dict[str, NDArray[Any]], name: str, array: NDArray[Any]) -> str:
    """Add a constant; the name it got."""
    name = fresh(name, constants)
    constants[name] = array
    return name


def _scaled(weight: Any, scale: Any, node: Node) -> Any:
    """Weights with each output channel scaled, in double precision."""
    if node.op == "conv_transpose":
        i, per_group = weight.shape[:2]
        groups = node.attrs["group"]
        by_input = np.repeat(scale.reshape(groups, per_group), i // groups, axis=0)
        return (weight * by_input.astype(np.float64)[:, :, None, None]).astype(np.float32)
    shape = (-1,) + (1,) * (weight.ndim - 1)
    return (weight * scale.astype(np.float64).reshape(shape)).astype(np.float32)


def fold_bias(graph: Graph) -> Graph:
    """A constant along the last axis, added behind a matrix product, is its bias."""
    constants = dict(graph.constants)

    def merge(first: Node, node: Node) -> Node | None:
        constant = constants[node.attrs["constant"]]
        o = graph.values[node.outputs[0]].shape[-1]
        along = constant.size == 1 or (constant.ndim > 0 and constant.shape[-1] == o == constant.size)
        if not _open(first) or not along or graph.values[node.outputs[0]].shape != graph.values[first.outputs[0]].shape:
            return None
        before = constants[first.attrs["bias"]] if first.attrs["bias"] is not None else np.float32(0)
        both = np.broadcast_to(before + constant.ravel(), (o,)).astype(np.float32)
        name = _keep(constants, f"{node.outputs[0]}.bias", both)
        return replace(first, outputs=node.outputs, attrs={**first.attrs, "bias": name})

    def adds_constant(node: Node) -> bool:
        return node.op == "binary" and node.attrs["function"] == "add" and node.attrs["constant"] is not None

    graph = _merge_into_maker(graph, adds_constant, ("gemm",), merge)
    return tidy(replace(graph, constants=constants))


def fuse_residuals(graph: Graph) -> Graph:
    """An addition of two values of one shape goes into the layer that makes one of them: the later one."""
    nodes = list(graph.nodes)
    made, readers = producers(graph), consumers(graph)
    for add in graph.nodes:
        if add.op != "binary" or add.attrs["function"] != "add" or len(set(add.inputs)) != 2:
            continue
        shape = graph.values[add.outputs[0]].shape
        if any(graph.values[name].shape != shape for name in add.inputs):
            continue
        order = sorted(add.inputs, key=lambda name: -_index(nodes, made.get(name)))
        for mine in order:
            layer = made.get(mine)
            fits = layer is not None and layer.op in ("conv", "gemm") and _open(layer)
            if layer is None or not fits or len(readers[mine]) > 1 or mine in graph.outputs:
                continue
            other = next(name for name in add.inputs if name != mine)
            merged = replace(layer, inputs=(*layer.inputs, other), outputs=add.outputs)
            nodes[_index(nodes, add)] = merged  # the other input is made by then
            nodes.remove(layer)
            made = {name: node for node in nodes for name in node.outputs}
            break
    return tidy(replace(graph, nodes=tuple(nodes)))


def _index(nodes: list[Node], node: Node | None) -> int:
    return next((i for i, n in enumerate(nodes) if n is node), -1)


def fuse_activations(graph: Graph) -> Graph:
    """An activation goes into the layer before it."""

    def merge(first: Node, node: Node) -> Node | None:
        if first.attrs["activation"] is not None:
            return None
        if node.attrs["slope"] is not None and len(graph.values[node.outputs[0]].shape) != (
            2 if first.op == "gemm" else 4
        ):
            return None
        attrs = {**first.attrs, "activation": node.attrs["activation"], "slope": node.attrs["slope"]}
        return replace(first, outputs=node.outputs, attrs=attrs)

    return _merge_into_maker(graph, lambda n: n.op == "activation", LAYERS, merge)


def _open(node: Node) -> bool:
    """A layer whose epilogue is only a bias yet."""
    return node.op in LAYERS and node.attrs["activation"] is None and len(node.inputs) == 1


def _merge_into_maker(
    graph: Graph, wanted: Callable[[Node], bool], makers: tuple[str, ...], merge: Callable[[Node, Node], Node | None]
) -> Graph:
    """Merge each wanted node with the maker of its first input, where nothing else reads that."""
    readers = consumers(graph)
    nodes: list[Node] = []
    at: dict[str, int] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        merged = None
        if wanted(node) and source in at and len(readers[source]) == 1 and source not in graph.outputs:
            first = nodes[at[source]]
            merged = merge(first, node) if first.op in makers else None
        if merged is not None:
            nodes[at[source]] = merged
            at[node.outputs[0]] = at[source]
        else:
            at |= {name: len(nodes) for name in node.outputs}
            nodes.append(node)
    return tidy(replace(graph, nodes=tuple(nodes)))


def _merge_into_reader(graph: Graph, op: str, merge: Callable[[Node, Node], Node | None]) -> Graph:
    """Merge each `op` node into its only reader."""
    made, readers = producers(graph), consumers(graph)
    nodes = []
    for node in graph.nodes:
        source = made.get(node.inputs[0]) if node.inputs else None
        while source is not None and source.op == op:
            name = source.outputs[0]
            merged = merge(source, node) if len(readers[name]) == 1 and name not in graph.outputs else None
            if merged is None:
                break
            node = merged
            source = made.get(node.inputs[0])
        nodes.append(node)
    return tidy(replace(graph, nodes=tuple(nodes)))


PASSES: Final[tuple[Callable[[Graph], Graph], ...]] = (
    skip_identities,
    join_directions,
    merge_reshapes,
    gate_activations,
    fold_pads,
    fold_scale_shift,
    fold_bias,
    fuse_residuals,
    fuse_activations,
    fold_flattening,
)
