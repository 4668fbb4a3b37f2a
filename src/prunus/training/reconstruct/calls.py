"""Calls of layers inside a running network, found by the weight that they are given: whether a module makes the call or
straight code does is the same.

What a layer reads is seen as a matrix: columns of the layer matrix x positions of its output.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

CONVOLUTIONS: Mapping[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}  # to spatial axes
Range = tuple[float, float]


def _relu(*_: object, **__: object) -> Range:
    return (0.0, math.inf)


def _clamp(input: object, min: object = None, max: object = None, **_: object) -> Range:
    low, high = (float(v) if isinstance(v, int | float) else None for v in (min, max))
    return (-math.inf if low is None else low, math.inf if high is None else high)


def _hardtanh(input: object, min_val: float = -1.0, max_val: float = 1.0, *_: object, **__: object) -> Range:
    return (min_val, max_val)


# functions that cut values off, to the bounds within which they don't
ACTIVATIONS: Mapping[Any, Callable[..., Range]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_), _relu),
    F.relu6: lambda *_, **__: (0.0, 6.0),
    **dict.fromkeys((torch.clamp, torch.clamp_, torch.clip, Tensor.clamp, Tensor.clip), _clamp),
    F.hardtanh: _hardtanh,
}
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One call of a linear layer or convolution: what it was given and what it gave. axes: spatial ones; linear: 0."""

    axes: int
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    output: Tensor
    stride: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def positions(self) -> int:
        """How many outputs of one channel the call makes."""
        return self.output.numel() // max(self.weight.shape[0], 1)

    def columns(self, chosen: Tensor) -> Tensor:
        """float64[columns of the layer matrix, chosen]: what the chosen positions read."""
        if not self.axes:
            return self.input.reshape(-1, self.input.shape[-1])[chosen].double().T
        x = self.input if self.input.ndim == self.axes + 2 else self.input[None]
        x = F.pad(x, [n for pair in reversed(self.pads) for n in pair])
        sizes = self.output.shape[-self.axes :]
        image, *places = _unravel(chosen, (len(x), *sizes))
        kernel = self.weight.shape[2:]
        windows = torch.cartesian_prod(*(torch.arange(k) for k in kernel)).reshape(-1, self.axes)
        taken = []
        for window in windows:
            at = [p * s + int(w) * d for p, s, w, d in zip(places, self.stride, window, self.dilation, strict=True)]
            taken.append(x.movedim(1, -1)[(image, *at)])  # [chosen, channels]
        return torch.stack(taken, 2).flatten(1).double().T

    def outputs(self, chosen: Tensor) -> Tensor:
        """float64[filters, chosen]."""
        if not self.axes:
            return self.output.reshape(-1, self.output.shape[-1])[chosen].double().T
        y = self.output if self.output.ndim == self.axes + 2 else self.output[None]
        return y.movedim(1, -1).reshape(-1, y.shape[1])[chosen].double().T


def _unravel(flat: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    places = []
    for size in reversed(shape):
        places.append(flat % size)
        flat = flat // size
    return places[::-1]


@final
class Watch(TorchFunctionMode):
    """Inside `with`, tells `seen` of every call of a layer with one of `weights`, by name.

    means: the running mean of the BatchNorm that a layer's output goes straight into, by the layer's name. ranges: the
    bounds within which what comes right behind a layer lets values pass, as ReLU does.
    """

    def __init__(self, weights: Mapping[str, Tensor], seen: Callable[[str, Call], None]) -> None:
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self._seen = seen
        self._made: list[tuple[str, Tensor]] = []
        self.means: dict[str, Tensor] = {}
        self.ranges: dict[str, Range] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        if func is F.batch_norm:
            self._normalises(*args, **given)
        elif func in ACTIVATIONS and (name := self._maker(args[0] if args else given.get("input"))) is not None:
            bounds = ACTIVATIONS[func](*args, **given)
            self.ranges[name] = bounds
        if func in CONVOLUTIONS or func is F.linear:
            named = dict(zip(_NAMES, args, strict=False)) | given
            name = self._names.get(id(named["weight"]))
            if name is not None:
                call = _call(CONVOLUTIONS.get(func, 0), named, result)
                self._made.append((name, result))
                self._seen(name, call)
        return result

    def _maker(self, x: object) -> str | None:
        return next((name for name, made in self._made if made is x), None)

    def _normalises(self, x: Tensor, running_mean: Tensor | None = None, *_: Any, **__: Any) -> None:
        name = self._maker(x)
        if name is not None and running_mean is not None:
            self.means[name] = running_mean


def _call(axes: int, given: Mapping[str, Any], output: Tensor) -> Call:
    weight, bias = given["weight"], given.get("bias")
    if not axes:
        return Call(0, given["input"], weight, bias, output)
    stride, dilation = (_tuple(given.get(key, 1), axes) for key in ("stride", "dilation"))
    padding = given.get("padding", 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _tuple(0 if padding == "valid" else padding, axes))
    return Call(axes, given["input"], weight, bias, output, stride, pads, dilation, int(given.get("groups", 1)))


def _tuple(value: Any, axes: int) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(n) for n in (numbers * axes if len(numbers) == 1 else numbers))


class Enough(Exception):
    """Nothing behind this call is wanted: ends a run of the network early."""


def run(model: nn.Module, batch: tuple[Tensor, ...], weights: Mapping[str, Tensor], wanted: int) -> list[Call]:
    """The calls with `weights` in one run of the network, which ends after `wanted` of them."""
    calls: list[Call] = []

    def seen(name: str, call: Call) -> None:
        calls.append(
            replace(call, output=call.output.clone()) if wanted > 1 else call
        )  # an activation may overwrite it
        if len(calls) == wanted:
            raise Enough

    try:
        with torch.no_grad(), Watch(weights, seen):
            model(*batch)
    except Enough:
        pass
    return calls


def order(model: nn.Module, batch: tuple[Tensor, ...], names: Iterable[str]) -> tuple[dict[str, list[Call]], Watch]:
    """The calls of each weight in one run, weights in the order of their first ones; and what watched them."""
    calls: dict[str, list[Call]] = {}
    weights = {name: model.get_parameter(name) for name in names}
    with torch.no_grad(), Watch(weights, lambda name, call: calls.setdefault(name, []).append(call)) as watch:
        model(*batch)
    return calls, watch
