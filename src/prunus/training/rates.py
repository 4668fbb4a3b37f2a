"""The optimiser of a recipe, and its learning rate as a function of the step."""

import math

import torch
from torch import nn

from prunus.training.standard import Optimizer

RISE = 0.3  # of a one-cycle run
FIRST, LAST = 25.0, 25e4  # one-cycle: the highest rate over that of the first and of the last step


def make_optimizer(settings: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Of all parameters."""
    if settings.name == "sgd":
        return torch.optim.SGD(model.parameters(), settings.rate, settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay)


def factor(settings: Optimizer, step: int, n_steps: int, steps_per_epoch: int) -> float:
    """The learning rate of step 0, 1, ... of n_steps, over the highest one.

    Source of one-cycle: Smith and Topin, 2017, arXiv:1708.07120, with two half waves as torch's OneCycleLR.
    """
    if settings.schedule == "one-cycle":
        top = max(RISE * n_steps - 1, 1e-9)
        if step <= top:
            return _wave(1 / FIRST, 1.0, step / top)
        return _wave(1.0, 1 / LAST, (step - top) / max(n_steps - 1 - top, 1e-9))
    rising = round(settings.warmup * steps_per_epoch)
    if step < rising:
        return (step + 1) / (rising + 1)
    if settings.schedule == "constant":
        return 1.0
    return _wave(1.0, 0.0, (step - rising) / max(n_steps - rising, 1))


def _wave(start: float, end: float, part: float) -> float:
    """Half a cosine wave from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
