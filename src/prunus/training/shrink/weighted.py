"""Rules of layers with weights: convolutions, linear and recurrent layers, normalisations.

Each ties its weights and gives the ids of what it makes. Grouped convolutions either lose whole groups or the same
channels of every group, whichever leaves more to choose from.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from prunus.training.shrink.units import WHOLE, Ids
from prunus.training.shrink.walk import Call, Step


def convolve(step: Step, weight: Any, bias: Any, groups: int, transposed: bool) -> Ids | None:
    """A convolution of the first argument with weight[o, i / groups, ...]; transposed, weight[i, o / groups, ...]."""
    walk, x = step.walk, step.raw(0, "input")
    channel = step.out.ndim - weight.ndim + 1
    inputs = step.along(x, channel)
    moved: Tensor = step.value(x) if transposed else step.out
    _count(step, weight, moved.numel() // moved.shape[channel], int(transposed))
    n_out, n_in = step.out.shape[channel], len(inputs)
    if groups == 1:
        outputs = _fresh(step, n_out)
        walk.tie(weight, 1 if transposed else 0, outputs, step.where)
        walk.tie(weight, 0 if transposed else 1, inputs, step.where)
    elif transposed or not _owned(step, weight):
        step.pin(x, "grouped, and transposed or without a module that knows its groups")
        return None
    elif groups >= n_in // groups + n_out // groups:  # whole groups
        outputs = np.repeat(_merge(step, inputs.reshape(groups, -1), 1), n_out // groups)
        walk.tie(weight, 0, outputs, step.where)
    else:
        each = _fresh(step, n_out // groups)
        walk.tie(weight, 1, _merge(step, inputs.reshape(groups, -1), 0), step.where)
        outputs = np.tile(each, groups)
        walk.tie(weight, 0, outputs, step.where)
    if groups > 1:
        known = walk.widths.setdefault(walk.name(weight) or "", inputs)
        walk.units.unite(known, inputs, step.where)
    if bias is not None:
        walk.tie(bias, 0, outputs, step.where)
    return step.placed(outputs, channel)


def multiply(step: Step, weight: Any, bias: Any) -> Ids | None:
    """A linear layer, along the last dimension."""
    _count(step, weight, step.out.numel() // step.out.shape[-1])
    step.walk.tie(weight, 1, step.along(step.raw(0, "input"), -1), step.where)
    outputs = _fresh(step, step.out.shape[-1])
    step.walk.tie(weight, 0, outputs, step.where)
    if bias is not None:
        step.walk.tie(bias, 0, outputs, step.where)
    return step.placed(outputs, -1)


def recur(step: Step, module: nn.RNNBase) -> Any:
    """RNN, GRU or LSTM: hidden unit k is the same in all gates, layers and directions, as the module has one width."""
    walk, x = step.walk, step.raw(0, "input")
    inputs = step.along(x, -1) if is_plain(step, x) else None
    initial = step.raw(1, "hx")
    if inputs is None or module.proj_size or any("weight" in n for n in _computed(module)):
        step.pin(None, "packed sequences, projections and computed weights aren't followed")
        return None
    hidden = _fresh(step, module.hidden_size)
    n_ways = 2 if module.bidirectional else 1
    positions = step.value(x).numel() // step.value(x).shape[-1]
    for name, parameter in module.named_parameters(recurse=False):
        gates = parameter.shape[0] // module.hidden_size
        walk.tie(parameter, 0, np.tile(hidden, gates), step.where)
        if parameter.ndim == 2:
            below = inputs if name.startswith("weight_ih_l0") else np.tile(hidden, n_ways)
            walk.tie(parameter, 1, hidden if "hh" in name else below, step.where)
            _count(step, parameter, positions)
    if initial is not None:
        walk.units.pin(hidden, f"{step.where}: its initial state is given")
        step.pin(initial, "an initial state")
    output, state = step.out
    out = step.placed(np.tile(hidden, n_ways), -1, output.ndim)
    if isinstance(state, Tensor):
        return [out, step.placed(hidden, -1, state.ndim)]
    return [out, [step.placed(hidden, -1, part.ndim) for part in state]]


def normalise(step: Step, parameters: list[Any]) -> Ids | None:
    """BatchNorm and others with statistics per channel; parameters and statistics are float[channels]."""
    x = step.raw(0, "input")
    ids = step.along(x, 1)
    for tensor in parameters:
        if tensor is not None:
            step.walk.tie(tensor, 0, ids, step.where)
    return step.ids(x)


def rectify(step: Step, slope: Tensor) -> Ids | None:
    """PReLU, with a slope for all channels or for each."""
    x = step.raw(0, "input")
    if slope.numel() > 1:
        step.walk.tie(slope, 0, step.along(x, 1), step.where)
    return step.ids(x)


def is_plain(step: Step, x: Any) -> bool:
    """Is an input a tensor, not a packed sequence?"""
    return type(step.value(x)) in (Tensor, nn.Parameter)


def _fresh(step: Step, n: int) -> Ids:
    """Units of a new layer; a single filter can't go."""
    return step.walk.units.new(n) if n > 1 else np.full(n, WHOLE)


def _merge(step: Step, ids: Ids, dim: int) -> Ids:
    """Unite along one of two dimensions."""
    first = ids.take([0], dim)
    step.walk.units.unite(ids, first, step.where)
    if (ids == WHOLE).any():
        first = np.where((ids == WHOLE).any(dim, keepdims=True), WHOLE, first)
    return first.ravel()


def _count(step: Step, weight: Any, positions: int, filters: int = 0) -> None:
    name = step.walk.name(weight)
    if name is not None:
        step.walk.calls.append(Call(name, positions, filters))


def _owned(step: Step, weight: Any) -> bool:
    """Does a convolution module hold the weight, whose `groups` can change?"""
    name = step.walk.name(weight)
    owner = step.walk.modules.get((name or "").rpartition(".")[0])
    return name is not None and isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _computed(module: nn.Module) -> list[str]:
    """Weights that aren't parameters but computed by a parametrisation."""
    return [name for name in vars(module).get("_flat_weights_names", ()) if name not in module._parameters]
