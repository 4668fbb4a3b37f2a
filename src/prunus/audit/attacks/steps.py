"""Attacks by gradient steps on all of the images: sign steps, PGD, and steps of a learned optimiser."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, linalg

from prunus.audit.optimiser import Optimiser
from prunus.audit.problem import Problem


def downhill(gradient: Tensor, norm: str) -> Tensor:
    """The steepest way [t, ...] down, of length 1 in the norm."""
    if norm == "linf":
        return -gradient.sign()
    length: Tensor = linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-30)
    return -gradient / length.reshape(-1, *(1,) * (gradient.ndim - 1))


@final
@dataclass(frozen=True)
class Pgd:
    """Steps of `rate` times eps along the sign of the gradient (its direction in the l2 ball), each projected.
    Source: Madry et al., ICLR 2018, arXiv:1706.06083."""

    rate: float = 0.125

    def __call__(self, problem: Problem, steps: int, start: Tensor | None = None) -> list[Tensor]:
        """The perturbations after each step."""
        ball, delta, path = problem.ball, problem.zero if start is None else start, []
        for _ in range(steps):
            delta = ball.project(delta + self.rate * ball.eps * downhill(problem.gradient(delta).mean, ball.norm))
            path.append(delta)
        return path


@final
@dataclass(frozen=True, eq=False)
class Learned:
    """Steps of a learned optimiser, from no perturbation. Of the paper's method and of vanilla L2O, which differ in
    training."""

    optimiser: Optimiser

    @torch.no_grad()
    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """The perturbations after each step."""
        delta, path = problem.zero, list[Tensor]()
        state = self.optimiser.begin(delta)
        for _ in range(steps):
            delta, state = self.optimiser.step(delta, problem.gradient(delta), state, problem.ball)
            path.append(delta)
        return path


@final
@dataclass(frozen=True, eq=False)
class Maml:
    """PGD from a learned perturbation, where it is of the images' size.
    Source: Finn et al., ICML 2017, arXiv:1703.03400, first order."""

    start: Tensor
    rate: float = 0.125

    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """The perturbations after each step; the learned one is scaled to the ball."""
        begin = problem.ball.project(self.start * problem.ball.eps).expand_as(problem.zero)
        return Pgd(self.rate)(problem, steps, begin)
