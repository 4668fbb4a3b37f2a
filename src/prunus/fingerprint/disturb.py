"""Weights disturbed by chance: what examples must bear, in the place of pruning that nobody knows yet."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.fingerprint.method import Method

Weights = dict[str, Tensor]


def disturbance(module: nn.Module, method: Method, seed: int) -> Callable[[], Weights]:
    """A function that draws all weights anew, by name; biases and statistics stay, or activations would collapse."""
    weights = {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1 and p.numel() > 1}
    widths = {name: method.noise * float(w.std()) for name, w in weights.items()}
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Weights:
        return {
            name: w + widths[name] * (2 * torch.rand(w.shape, generator=generator) - 1) for name, w in weights.items()
        }

    def pruned() -> Weights:
        made = {}
        for name, w in weights.items():
            gone = int(float(torch.rand((), generator=generator)) * method.noise * w.numel())
            bound = w.abs().flatten().kthvalue(gone).values if gone else torch.tensor(-1.0)
            made[name] = w * (w.abs() > bound)
        return made

    return uniform if method.draw == "uniform" else pruned
