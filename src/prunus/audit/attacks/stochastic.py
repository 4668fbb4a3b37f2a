"""Universal perturbations by sign steps on minibatches: SGD-UAP and SGA; and random signs as the floor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from prunus.audit.attacks.steps import downhill
from prunus.audit.problem import Problem


def batches(n: int, size: int, chance: torch.Generator) -> Iterator[Tensor]:
    """Numbers 0..n-1 in minibatches, shuffled anew when they are used up; without end."""
    while True:
        yield from torch.split(torch.randperm(n, generator=chance), size)


@final
@dataclass(frozen=True)
class SgdUap:
    """A step of `rate` times eps down the gradient of each minibatch.
    Source: Shafahi et al., AAAI 2020, arXiv:1811.11304; constants: Mummadi et al., 2019."""

    rate: float = 0.8
    batch: int = 10
    seed: int = 0

    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """The perturbations after each step."""
        ball, delta, path = problem.ball, problem.zero, list[Tensor]()
        parts = batches(problem.y.shape[1], self.batch, torch.Generator().manual_seed(self.seed))
        for _, chosen in zip(range(steps), parts, strict=False):
            gradient = problem.gradient(delta, chosen).mean
            delta = ball.project(delta + self.rate * ball.eps * downhill(gradient, ball.norm))
            path.append(delta)
        return path


@final
@dataclass(frozen=True)
class Sga:
    """Stochastic gradient aggregation: `inner` sign steps on minibatches, from where we are; one step along the sign of
    the sum of their gradients. A step here is one of those.
    Source: Liu et al., ICCV 2023, arXiv:2308.06015."""

    rate: float = 0.1
    inner: int = 4
    batch: int = 4
    seed: int = 0

    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """The perturbations after each outer step."""
        ball, delta, path = problem.ball, problem.zero, list[Tensor]()
        parts = batches(problem.y.shape[1], self.batch, torch.Generator().manual_seed(self.seed))
        for _ in range(steps):
            probe, total = delta, torch.zeros_like(delta)
            for _, chosen in zip(range(self.inner), parts, strict=False):
                gradient = problem.gradient(probe, chosen).mean
                total = total + gradient
                probe = ball.project(probe + self.rate * ball.eps * downhill(gradient, ball.norm))
            delta = ball.project(delta + self.rate * ball.eps * downhill(total, ball.norm))
            path.append(delta)
        return path


@final
@dataclass(frozen=True)
class RandomSigns:
    """As large as the ball permits, of random signs; each step draws anew. What an attack has to be better than."""

    seed: int = 0

    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """A perturbation for each step, independent of each other."""
        chance = torch.Generator().manual_seed(self.seed)
        shape, ball = problem.zero.shape, problem.ball
        reach = ball.eps if ball.norm == "linf" else ball.eps / problem.zero[0].numel() ** 0.5
        return [(torch.randint(0, 2, shape, generator=chance).float() * 2 - 1) * reach for _ in range(steps)]
