"""Does a graph read at batch 1 hold for any batch, with only the leading dimensions scaled?"""

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
        case "onnxruntime":
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
