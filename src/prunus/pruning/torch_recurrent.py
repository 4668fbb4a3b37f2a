"""The `recurrent` operator in torch, differentiable: one call in a recorded network, for any number of steps."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

# kind -> function; see `prunus.graph.ir.GATE_ACTIVATIONS`
GATE: Final[Mapping[str, Callable[..., Tensor]]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda a, alpha, beta: torch.clamp(alpha * a + beta, 0, 1),
    "leaky_relu": lambda a, alpha: F.leaky_relu(a, alpha),
    "elu": lambda a, alpha: F.elu(a, alpha),
    "softplus": F.softplus,
    "affine": lambda a, alpha, beta: alpha * a + beta,
    "thresholded_relu": lambda a, alpha: torch.where(a > alpha, a, torch.zeros_like(a)),
    "scaled_tanh": lambda a, alpha, beta: alpha * torch.tanh(beta * a),
    "softsign": F.softsign,
}
Gate = tuple[str, tuple[float, ...]]


def recurrent(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor | None, inside: Tensor | None, h: Tensor | None,
    c: Tensor | None, lengths: Tensor | None, kind: str, activations: Sequence[Gate], before_reset: bool,
    reverse: bool, clip: float | None, coupled: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y[t, n, h], last h[n, h] and last c[n, h] (of an LSTM: else it is h); as `prunus.graph.ir.OPS` says. States of
    None are zeros, and may have n = 1 for all. Recorded by `torch.fx` it is one call."""
    tensors = [t for t in (x, weight, recurrence, bias, inside, h, c, lengths) if t is not None]
    if has_torch_function(tensors):
        made: tuple[Tensor, Tensor, Tensor] = handle_torch_function(
            recurrent, tensors, x, weight, recurrence, bias, inside, h, c, lengths, kind, activations, before_reset,
            reverse, clip, coupled,
        )  # fmt: skip
        return made
    t, n = x.shape[:2]
    zeros = x.new_zeros(n, recurrence.shape[1])
    h, c = (zeros if state is None else state.expand_as(zeros) for state in (h, c))
    functions = [partial(_gate, gate, clip if j < 2 else None) for j, gate in enumerate(activations)]
    sums = F.linear(x, weight, bias)  # of all steps at once
    if reverse and lengths is not None:
        sums = _turned(sums, lengths)
    elif reverse:
        sums = sums.flip(0)
    steps = []
    for step in range(t):
        if kind == "gru":
            new, cell = _gru(sums[step], h, recurrence, inside, functions, before_reset), c
        elif kind == "lstm":
            new, cell = _lstm(sums[step] + F.linear(h, recurrence), c, functions, coupled)
        else:
            new, cell = functions[0](sums[step] + F.linear(h, recurrence)), c
        if lengths is None:
            h, c = new, cell
            steps.append(new)
        else:
            live = (step < lengths)[:, None]
            h, c = torch.where(live, new, h), torch.where(live, cell, c)
            steps.append(torch.where(live, new, zeros))
    y = torch.stack(steps)
    if reverse:
        y = y.flip(0) if lengths is None else _turned(y, lengths)
    if lengths is not None:
        h, c = (torch.where((lengths == 0)[:, None], zeros, state) for state in (h, c))
    return y, h, c


def _gate(gate: Gate, clip: float | None, sums: Tensor) -> Tensor:
    kind, params = gate
    return GATE[kind](sums if clip is None else torch.clamp(sums, -clip, clip), *params)


def _turned(a: Tensor, lengths: Tensor) -> Tensor:
    """[t, n, h] with the first `lengths` steps of each sequence backwards; the others stay."""
    steps = torch.arange(len(a), device=a.device)[:, None]
    at = torch.where(steps < lengths, lengths - 1 - steps, steps).long()
    return torch.gather(a, 0, at[:, :, None].expand_as(a))


def _gru(
    sums: Tensor, h: Tensor, recurrence: Tensor, inside: Tensor | None, functions: Sequence[Callable[..., Tensor]],
    before_reset: bool,
) -> Tensor:  # fmt: skip
    size = h.shape[1]
    z, r = functions[0](sums[:, : 2 * size] + F.linear(h, recurrence[: 2 * size])).chunk(2, 1)
    own = recurrence[2 * size :]
    past = r * F.linear(h, own, inside) if before_reset else F.linear(r * h, own)
    return torch.lerp(functions[1](sums[:, 2 * size :] + past), h, z)


def _lstm(
    sums: Tensor, c: Tensor, functions: Sequence[Callable[..., Tensor]], coupled: bool
) -> tuple[Tensor, Tensor]:  # fmt: skip
    i, o, f, g = sums.chunk(4, 1)
    take = functions[0](i)
    c = (1 - take if coupled else functions[0](f)) * c + take * functions[1](g)
    return functions[0](o) * functions[2](c), c
