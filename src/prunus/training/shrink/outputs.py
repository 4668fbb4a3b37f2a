"""Which layers make a network's outputs: filters of theirs that are zero are answers that are never given."""

from torch import fx, nn

from prunus.errors import UnsupportedError
from prunus.training.layers import CONVOLUTIONS, RECURRENT, TRANSPOSED
from prunus.training.shrink.trace import trace


def output_layers(model: nn.Module) -> frozenset[str]:
    """Names of modules with weights from which a way without other weights leads to an output; none, if the network
    can't be traced. One in shards can't: its modules would take the trace for their first forward pass."""
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        return frozenset()
    try:
        graph = trace(model)
    except UnsupportedError:
        return frozenset()
    modules = dict(model.named_modules())
    found, seen = set[str](), set[fx.Node]()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and isinstance(
            modules[str(node.target)], (*CONVOLUTIONS, *TRANSPOSED, *RECURRENT, nn.Linear)
        ):
            found.add(str(node.target))
        elif node.op == "get_attr":
            found.add(str(node.target).rpartition(".")[0])
        else:
            waiting.extend(node.all_input_nodes)
    return frozenset(found)
