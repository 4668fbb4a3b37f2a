"""Quantise-aware training: weights and inputs of layers are rounded as int8 will round them, with the gradient of the
identity.

Weights: symmetric, a scale per filter. Inputs: asymmetric, by a running range. Zeros stay zero.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3; ranges are running means of each batch's extremes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.training.layers import CONVOLUTIONS

MEMORY = 0.99  # of a range; the first batch sets it


@final
class Rounding:
    """Rounds the convolutions and linear layers of a model, in place, until `remove`."""

    def __init__(self, model: nn.Module) -> None:
        self._ranges: dict[str, Tensor] = {}
        self._held: dict[str, nn.Parameter] = {}
        self._on = True
        self._hooks = []
        for name, module in model.named_modules():
            if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and isinstance(module.weight, nn.Parameter):
                before, after = partial(self._before, name), partial(self._after, name)
                self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
                self._hooks.append(module.register_forward_hook(after, always_call=True))

    def remove(self) -> None:
        """Leave the layers as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def off(self) -> Iterator[None]:
        """Without rounding, for a while."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def state(self) -> dict[str, Tensor]:
        """The ranges of inputs."""
        return dict(self._ranges)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self._ranges = {name: tensor.clone() for name, tensor in state.items()}

    def _before(
        self, name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self._on:
            return None
        if inputs:
            inputs = (self._round_input(name, inputs[0], module.training), *inputs[1:])
        elif "input" in named:
            named = {**named, "input": self._round_input(name, named["input"], module.training)}
        weight = module._parameters["weight"]
        assert weight is not None
        self._held[name] = weight
        # in its place: the order of parameters, which optimisers count by, stays as it is
        module._parameters["weight"] = round_weight(weight)  # type: ignore[assignment]
        return inputs, named

    def _after(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if name in self._held:
            module._parameters["weight"] = self._held.pop(name)

    def _round_input(self, name: str, x: Tensor, learn: bool) -> Tensor:
        low, high = x.detach().min().clamp(max=0), x.detach().max().clamp(min=0)
        extremes = torch.stack([low, high])
        known = self._ranges.get(name, extremes).to(extremes)
        if learn:
            known = known.lerp(extremes, 1 - MEMORY)
        self._ranges[name] = known
        scale = ((known[1] - known[0]) / 255).clamp(min=1e-12)
        zero = (-known[0] / scale).round()
        rounded = ((x / scale + zero).round().clamp(0, 255) - zero) * scale
        return x + (rounded - x).detach()


def round_weight(weight: Tensor) -> Tensor:
    """The nearest multiples of each filter's scale, -127 to 127, with the gradient of the identity."""
    top = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    scale = (top / 127).clamp(min=1e-12)
    rounded = (weight.detach() / scale).round().clamp(-127, 127) * scale
    return weight + (rounded - weight).detach()
