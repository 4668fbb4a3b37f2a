"""Does a graph read at one batch size hold for any, with only the leading dimensions scaled?"""

from dataclasses import replace

import numpy as np

from prunus.graph.ir import Graph, Node


def scales_with_batch(graph: Graph) -> bool:
    """Every node works on each entry of axis 0 by itself. Partitions are taken not to: their shapes are folded in."""
    if any(len(graph.values[name].shape) == 0 for node in graph.nodes for name in (*node.inputs, *node.outputs)):
        return False
    return all(_independent(node, graph) for node in graph.nodes)


def _independent(node: Node, graph: Graph) -> bool:
    shapes = [graph.values[name].shape for name in node.inputs]
    attrs = node.attrs
    match node.op:
        case "onnxruntime" | "recurrent":  # whose steps come before the batch
            return False
        case "concat" | "split":
            return bool(attrs["axis"] != 0)
        case "softmax":
            return bool(attrs["axis"] != 0)
        case "reduce_mean":
            return 0 not in attrs["axes"]
        case "transpose":
            return bool(attrs["perm"][0] == 0)
        case "pad":
            return tuple(attrs["pads"][0]) == (0, 0)
        case "slice":
            return (attrs["starts"][0], attrs["ends"][0], attrs["steps"][0]) == (0, shapes[0][0], 1)
        case "gemm":
            return len(shapes[0]) > 1
        case "binary":
            out = graph.values[node.outputs[0]].shape
            if any(len(shape) != len(out) for shape in shapes):
                return False
            if attrs["constant"] is None:
                return True
            constant = np.shape(graph.constants[attrs["constant"]])
            return len(constant) < len(out) or constant[0] == 1
    return True


def same_but_for_batch(a: Graph, b: Graph) -> bool:
    """Graphs of one model at two batch sizes: only the leading dimensions differ, and those in proportion."""
    if not a.inputs or a.outputs != b.outputs or set(a.values) != set(b.values) or set(a.constants) != set(b.constants):
        return False
    of_a, of_b = (graph.values[graph.inputs[0]].shape[0] for graph in (a, b))
    for name, value in a.values.items():
        shape, other = value.shape, b.values[name].shape
        if shape[1:] != other[1:] or len(shape) != len(other) or shape[0] * of_b != other[0] * of_a:
            return False
    if len(a.nodes) != len(b.nodes) or any(_bare(x) != _bare(y) for x, y in zip(a.nodes, b.nodes, strict=True)):
        return False
    return all(np.array_equal(array, b.constants[name]) for name, array in a.constants.items())


def _bare(node: Node) -> Node:
    """Without the sizes of the leading axis, which the values' shapes say."""
    if node.op == "reshape":
        return replace(node, attrs={"shape": node.attrs["shape"][1:]})
    if node.op == "slice":  # along the leading axis `scales_with_batch` has seen it take all
        return replace(node, attrs={name: numbers[1:] for name, numbers in node.attrs.items()})
    return node
