"""A network whose recurrent layers keep their states from call to call: what fed and returned them goes."""

from dataclasses import replace

from prunus.errors import UnsupportedError
from prunus.graph.ir import Graph, Node, producers
from prunus.graph.tidy import tidy

MOVES = ("reshape", "identity", "slice", "split", "transpose")  # between an input and a state
JOINS = (*MOVES, "concat")  # between states and an output


def with_states_inside(graph: Graph) -> Graph:
    """Recurrent nodes without inputs for their states; the graph without outputs that are but last states, unless it
    has no others. States begin as the constants they have, or zero.

    Raises UnsupportedError: nothing to stream, or a layer that sees the future, has lengths, or a state that is
    computed.
    """
    made = producers(graph)
    nodes = [_inside(node, graph, made) if node.op == "recurrent" else node for node in graph.nodes]
    if not any(node.op == "recurrent" for node in nodes):
        raise UnsupportedError("streaming: the network has no recurrent layer")
    states = {name for node in graph.nodes if node.op == "recurrent" for name in node.outputs[1:]}
    for node in graph.nodes:
        if node.op in JOINS and node.inputs and states.issuperset(node.inputs):
            states.update(node.outputs)
    outputs = tuple(name for name in graph.outputs if name not in states)
    if not outputs:
        outputs = graph.outputs
    slim = tidy(replace(graph, nodes=tuple(nodes), outputs=outputs))
    read = {name for node in slim.nodes for name in node.inputs} | set(slim.outputs)
    fed = {name for node in graph.nodes if node.op == "recurrent" for name in node.inputs[1:]}
    sources = {_source(name, made) for name in fed}
    inputs = tuple(name for name in graph.inputs if name in read or name not in sources)
    return replace(slim, inputs=inputs)


def _inside(node: Node, graph: Graph, made: dict[str, Node]) -> Node:
    attrs = node.attrs
    if attrs["reverse"]:
        raise UnsupportedError(f"streaming: layer {node.name!r} reads its steps backwards: it needs the whole sequence")
    if attrs["lengths"] is not None or "lengths" in attrs["given"]:
        raise UnsupportedError(f"streaming: layer {node.name!r} has sequence lengths: steps come as they are fed")
    for name in node.inputs[1:]:
        if _source(name, made) not in graph.inputs:
            raise UnsupportedError(f"streaming: layer {node.name!r} has a state that is computed, {name!r}")
    return replace(node, inputs=node.inputs[:1], attrs={**attrs, "given": ()})


def _source(name: str, made: dict[str, Node]) -> str:
    """What a state is cut out of."""
    while name in made and made[name].op in MOVES:
        name = made[name].inputs[0]
    return name
