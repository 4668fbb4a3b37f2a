"""What to do about a weak network: a short fine-tune against universal perturbations, under its masks.

The perturbations are made on the way: each batch moves one of a few a step uphill, and the network learns from the
batch with it and without.
Source: Shafahi et al., "Universal Adversarial Training", AAAI 2020, arXiv:1811.11304; several perturbations are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from prunus.audit.ball import Ball
from prunus.audit.tasks import Source
from prunus.errors import AuditError
from prunus.training.layers import find_layers
from prunus.training.pruner import Pruner


@final
@dataclass(frozen=True)
class HardenPlan:
    """How to fine-tune. rate: the highest learning rate, of AdamW. perturbations: how many are kept going. stride: a
    step of theirs, in eps. clean: the share of the loss that is of clean images."""

    ball: Ball
    epochs: int = 3
    rate: float = 1e-3
    batch: int = 64
    perturbations: int = 4
    stride: float = 0.25
    clean: float = 0.5
    seed: int = 0


def harden(
    model: nn.Module, images: Source, plan: HardenPlan, pruner: Pruner | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> None:  # fmt: skip
    """Fine-tune in place. pruner: whose masks are to hold, one that is finalised; None: the zeros that there are stay.

    Raises AuditError: the loss isn't finite.
    """
    pruner = pruner or keeping(model)
    ball, chance = plan.ball, torch.Generator().manual_seed(plan.seed)
    signs = torch.randint(0, 2, (plan.perturbations, *images.shape), generator=chance).float() * 2 - 1
    deltas = ball.project(signs * (ball.eps if ball.norm == "linf" else ball.eps / signs[0].numel() ** 0.5))
    optimizer = torch.optim.AdamW(model.parameters(), plan.rate, weight_decay=0.0)
    n_steps = plan.epochs * -(-len(images.y) // plan.batch)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=max(1, n_steps))
    model.train()
    done = 0
    for epoch in range(plan.epochs):
        lost = 0.0
        for chosen in torch.split(torch.randperm(len(images.y), generator=chance), plan.batch):
            x, y, which = images.x[chosen], images.y[chosen], done % plan.perturbations
            delta = deltas[which : which + 1].requires_grad_()
            loss = functional.cross_entropy(model(ball.add(x[None], delta)[0]), y)
            both = (1 - plan.clean) * loss + plan.clean * functional.cross_entropy(model(x), y)
            if not bool(torch.isfinite(both.detach())):
                raise AuditError(f"the loss isn't finite at step {done + 1} of the fine-tune: a lower rate may help")
            optimizer.zero_grad()
            both.backward()  # type: ignore[no-untyped-call]
            assert delta.grad is not None
            uphill = (
                delta.grad.sign()
                if ball.norm == "linf"
                else functional.normalize(delta.grad.flatten(1)).reshape(delta.shape)
            )
            deltas = deltas.detach()
            deltas[which] = ball.project(delta.detach() + plan.stride * ball.eps * uphill)[0]
            optimizer.step()
            rates.step()
            if pruner is not None:
                pruner.step()
            done += 1
            lost += float(both.detach()) * len(chosen)
        progress(f"epoch {epoch + 1} of {plan.epochs}, loss {lost / len(images.y):.3f}")
    model.eval()


def keeping(model: nn.Module) -> Pruner | None:
    """A pruner that prunes nothing and keeps the zeros that a network has; None where it has none."""
    if not any(bool((layer.weight == 0).any()) for layer in find_layers(model) if not layer.refusal):
        return None
    rules = {"version": 1, "method": "one-shot", "layers": [{"match": "re:.*", "keep": True}]}
    pruner = Pruner(model, rules, steps_per_epoch=1)
    pruner.finalize()
    return pruner
