"""Several few-shot tasks at once as one problem of finding a perturbation for each, and its gradients.

Gradients are of the mean loss over a task's images: by autograd, or from answers alone in random directions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prunus.audit.ball import Ball
from prunus.audit.objective import MARGIN, Objective
from prunus.audit.victims import Victim
from prunus.errors import AuditError


@final
@dataclass(frozen=True, eq=False)
class Gradient:
    """loss [t, n], and of the gradients of its images the mean [t, ...]; spread: their standard deviation."""

    loss: Tensor
    mean: Tensor
    spread: Tensor


@final
@dataclass(frozen=True, eq=False)
class Queries:
    """How gradients are had from answers: `directions` random ones, both ways, of length `reach` times eps.

    cells: directions are alike on squares, so that there are no more than about so many of them; large images have far
    more pixels than one can ask about. generator: moves on with every gradient.
    """

    generator: torch.Generator
    directions: int = 40
    reach: float = 0.5
    cells: int = 1024


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """x [t, n, ...], y [t, n]: t tasks of n images each, of one victim. queries: None where it has gradients."""

    victim: Victim
    x: Tensor
    y: Tensor
    ball: Ball
    objective: Objective = MARGIN
    queries: Queries | None = None

    @property
    def zero(self) -> Tensor:
        """No perturbation, for each task."""
        return torch.zeros_like(self.x[:, 0])

    def gradient(self, delta: Tensor, chosen: Tensor | None = None) -> Gradient:
        """At perturbations [t, ...], of all images or those `chosen` by number.

        Raises AuditError: a gradient isn't finite; names the victim.
        """
        x, y = (self.x, self.y) if chosen is None else (self.x[:, chosen], self.y[:, chosen])
        found = self._by_autograd(x, y, delta) if self.queries is None else self._by_queries(x, y, delta, self.queries)
        if not bool(torch.isfinite(found.mean).all()):
            raise AuditError(f"{self.victim.name}: its gradient has values that aren't finite: it can't be attacked so")
        return found

    def losses(self, delta: Tensor, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """[t, n] at perturbations [t, ...], without a gradient: of these images or the problem's own."""
        x, y = self.x if x is None else x, self.y if y is None else y
        with torch.no_grad():
            return self._losses(self.ball.add(x, delta), y)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.victim.logits(x.flatten(0, 1))
        return self.objective.losses(logits, y.flatten()).reshape(y.shape)

    def _by_autograd(self, x: Tensor, y: Tensor, delta: Tensor) -> Gradient:
        t, n = y.shape
        xs, ys = x.flatten(0, 1), y.flatten()
        moves = delta.repeat_interleave(n, 0)
        pieces = (torch.split(a, self.victim.at_once) for a in (xs, ys, moves))
        parts = [self._part(*part) for part in zip(*pieces, strict=True)]
        loss = torch.cat([part[0] for part in parts]).reshape(y.shape)
        each = torch.cat([part[1] for part in parts]).reshape(x.shape)
        self.victim.meter.gradients += t * n
        mean = each.mean(1) + self._pull(delta)
        return Gradient(loss, mean, each.std(1, correction=0))

    def _part(self, x: Tensor, y: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        moves = moves.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.victim.logits(self.ball.add(x[:, None], moves)[:, 0])
            losses = self.objective.losses(logits, y)
            (each,) = torch.autograd.grad(losses.sum(), moves)
        return losses.detach(), each

    def _by_queries(self, x: Tensor, y: Tensor, delta: Tensor, how: Queries) -> Gradient:
        """Central differences along random signs.
        Source: Nesterov & Spokoiny, 2017; directions alike on squares: Ilyas et al., 2018, arXiv:1807.07978."""
        total, squares = torch.zeros_like(x), torch.zeros_like(x)
        reach = how.reach * (self.ball.eps if self.ball.norm == "linf" else self.ball.eps / delta[0].numel() ** 0.5)
        losses = torch.zeros(y.shape)
        for _ in range(how.directions):
            way = signs(delta.shape, how)
            up, down = (self.losses(delta + side * reach * way, x, y) for side in (1, -1))
            slope = ((up - down) / (2 * reach)).reshape(*y.shape, *(1,) * (delta.ndim - 1))
            each = slope * way.unsqueeze(1)
            total, squares, losses = total + each, squares + each**2, losses + (up + down) / 2
        each = total / how.directions
        return Gradient(losses / how.directions, each.mean(1) + self._pull(delta), each.std(1, correction=0))

    def _pull(self, delta: Tensor) -> Tensor | float:
        """The gradient of the l1 term."""
        return self.objective.l1 * delta.sign() / (self.ball.eps * delta[0].numel()) if self.objective.l1 else 0.0


def signs(shape: tuple[int, ...], how: Queries) -> Tensor:
    """Random +-1 of `shape` [t, ...], alike on squares of the last two axes."""
    side = 1
    if len(shape) >= 3:
        height, width = shape[-2:]
        while -(-height // side) * -(-width // side) > how.cells:
            side += 1
        small = (*shape[:-2], -(-height // side), -(-width // side))
    else:
        small = shape
    found = torch.randint(0, 2, small, generator=how.generator).float() * 2 - 1
    if side == 1:
        return found
    wide = functional.interpolate(found.flatten(0, -3)[None], scale_factor=side, mode="nearest")[0]
    return wide.reshape(*shape[:-2], *wide.shape[-2:])[..., : shape[-2], : shape[-1]]


Attack = Callable[[Problem, int], list[Tensor]]  # of a number of steps: the perturbations [t, ...] after each
