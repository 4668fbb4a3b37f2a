"""What passes leave behind goes: nodes that nothing reads, with their values and constants."""

from dataclasses import replace

from prunus.graph.ir import CONSTANTS, Graph


def tidy(graph: Graph) -> Graph:
    """Without nodes that nothing reads, and the values and constants that no node names."""
    wanted = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    wanted.update(graph.inputs)
    for node in kept:
        wanted.update(node.outputs)
    named = {value for node in kept for key, value in node.attrs.items() if key in CONSTANTS}
    return replace(
        graph,
        nodes=tuple(reversed(kept)),
        values={name: value for name, value in graph.values.items() if name in wanted},
        constants={name: value for name, value in graph.constants.items() if name in named},
    )
