"""Layers of a recorded network (`torch.fx`) that are calls with weights, not modules: an ONNX file's, for one."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import fx, nn

# Function: where its arguments have the weight and the number of groups
CALLS: Final = {torch.conv1d: 6, torch.conv2d: 6, torch.conv3d: 6, nn.functional.linear: None}
TRANSPOSED: Final = (nn.functional.conv_transpose1d, nn.functional.conv_transpose2d, nn.functional.conv_transpose3d)


def called_weights(model: fx.GraphModule) -> Iterator[tuple[str, nn.Module, str]]:
    """The parameter's path, the module that holds it, and why it can't be pruned ("": it can), by calls."""
    for node in model.graph.nodes:
        if node.op != "call_function" or (node.target not in CALLS and node.target not in TRANSPOSED):
            continue
        weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        path = str(weight.target)
        owner, _, leaf = path.rpartition(".")
        holder = model.get_submodule(owner)
        if isinstance(getattr(holder, leaf, None), nn.Parameter):
            yield path, holder, _refusal(node)


def _refusal(node: fx.Node) -> str:
    if node.target in TRANSPOSED:
        return "transposed convolution"
    place = CALLS[node.target]  # type: ignore[index]
    if place is None:
        return ""
    groups = node.args[place] if len(node.args) > place else node.kwargs.get("groups", 1)
    return "" if groups == 1 else "grouped convolution"
