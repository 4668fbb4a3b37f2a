"""Weights and an optimiser's state as whole tensors on the CPU, and back, with or without shards."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunus.training.shards import like, whole


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each a copy. All processes have to ask."""
    return {name: _copy(tensor) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def set_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put in what `weights_of` took."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(like(weights[name], tensor))


def optimizer_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State by "number of the parameter/name". All processes have to ask."""
    return {
        f"{number}/{key}": _copy(value)
        for number, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def set_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put in what `optimizer_of` took."""
    optimizer.state.clear()
    parameters = _parameters(optimizer)
    for name, tensor in state.items():
        number, _, key = name.partition("/")
        parameter = parameters[int(number)]
        # counters of steps are on the CPU, whatever the parameter is on
        value = tensor.clone() if key == "step" else like(tensor, parameter.detach()).clone()
        optimizer.state[parameter][key] = value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copy(tensor: Tensor) -> Tensor:
    return whole(tensor.detach()).cpu().clone().contiguous()
