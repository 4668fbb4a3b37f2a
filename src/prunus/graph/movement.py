"""Passes on nodes that only move elements: much of what exporters write around recurrent layers comes to nothing."""

from dataclasses import replace

from prunus.graph.ir import Graph, Node, consumers, names_kept, producers
from prunus.graph.tidy import tidy


def join_directions(graph: Graph) -> Graph:
    """Directions [t, n, h] side by side as an axis of their own that is then moved and folded into the last one,
    [t, n, d * h], are a concatenation along the last axis."""
    made, readers = producers(graph), consumers(graph)
    nodes = []
    for node in graph.nodes:
        pieces = _directions(node, graph, made, readers)
        nodes.append(Node("concat", node.name, pieces, node.outputs, {"axis": 2}) if pieces else node)
    return tidy(replace(graph, nodes=tuple(nodes)))


def _directions(
    node: Node, graph: Graph, made: dict[str, Node], readers: dict[str, list[Node]]
) -> tuple[str, ...] | None:
    """The values [t, n, h] that such a reshape puts side by side, if it does."""
    turn = made.get(node.inputs[0]) if node.op == "reshape" else None
    if turn is None or turn.op != "transpose" or tuple(turn.attrs["perm"]) != (0, 2, 1, 3):
        return None
    concat = made.get(turn.inputs[0])
    if concat is None or concat.op != "concat" or concat.attrs["axis"] != 1:
        return None
    if any(len(readers[name]) > 1 or name in graph.outputs for name in (turn.inputs[0], node.inputs[0])):
        return None
    reshapes = [made.get(name) for name in concat.inputs]
    pieces = tuple(source.inputs[0] for source in reshapes if source is not None and source.op == "reshape")
    shapes = [graph.values[name].shape for name in pieces]
    t, n, width = graph.values[node.outputs[0]].shape if len(graph.values[node.outputs[0]].shape) == 3 else (0, 0, 0)
    alike = all(graph.values[name].shape == (t, 1, n, width // len(reshapes)) for name in concat.inputs)
    return pieces if alike and shapes == [(t, n, width // len(reshapes))] * len(reshapes) else None


def merge_reshapes(graph: Graph) -> Graph:
    """A reshape of a reshape reads what that read, and goes where it changes nothing; a transposition that moves axes
    of size 1 only is a reshape."""
    made: dict[str, Node] = {}
    names: dict[str, str] = {}
    kept = names_kept(graph)
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
        if _reshapes(node, graph):
            source, out = made.get(node.inputs[0]), graph.values[node.outputs[0]]
            x = source.inputs[0] if source is not None and source.op == "reshape" else node.inputs[0]
            if graph.values[x] == replace(out, name=x) and out.name not in kept:
                names[out.name] = x
                continue
            node = Node("reshape", node.name, (x,), node.outputs, {"shape": out.shape})
        made |= dict.fromkeys(node.outputs, node)
        nodes.append(node)
    return tidy(replace(graph, nodes=tuple(nodes)))


def _reshapes(node: Node, graph: Graph) -> bool:
    """Does it leave the order of elements as it is?"""
    if node.op != "transpose":
        return node.op == "reshape"
    shape = graph.values[node.inputs[0]].shape
    kept = [axis for axis in node.attrs["perm"] if shape[axis] > 1]
    return kept == sorted(kept)
