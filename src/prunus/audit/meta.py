"""Meta-training: the optimiser's weights, or MAML's first perturbation, from many few-shot tasks.

The paper's method judges each step of the optimiser on images of the task that its gradients haven't seen (`judged`
"held"), vanilla L2O on those that they have ("fit"); all else is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from prunus.audit.attacks.steps import Pgd
from prunus.audit.ball import Ball
from prunus.audit.objective import MARGIN, Objective, margins
from prunus.audit.optimiser import Optimiser
from prunus.audit.problem import Problem
from prunus.audit.tasks import Source, Tasks, draw
from prunus.audit.victims import Victim
from prunus.errors import AuditError


@final
@dataclass(frozen=True, eq=False)
class Ground:
    """Images and victims that were trained on such: tasks are drawn from it. eps: the ball's, at random between."""

    source: Source
    victims: tuple[Victim, ...]
    eps: tuple[float, float]
    low: float = 0.0
    high: float = 1.0


@final
@dataclass(frozen=True)
class MetaPlan:
    """How to meta-train. rounds: of one ground, victim and shape of tasks each, `tasks` at once at most, fewer where
    there are more than `coordinates` of them together. shots: one of these,
    images per class. classes: of a task. held: images to judge a task on, about. steps: of a task, `cut` of them
    between truncations. rate: Adam's highest."""

    judged: Literal["held", "fit"] = "held"
    rounds: int = 400
    tasks: int = 8
    coordinates: int = 3200
    classes: tuple[int, ...] = (2, 5)
    shots: tuple[int, ...] = (1, 2)
    held: int = 16
    steps: int = 20
    cut: int = 10
    rate: float = 3e-3
    sees: str = "local"
    hidden: int = 16
    objective: Objective = MARGIN
    seed: int = 0


def surrogate(problem: Problem, delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How often inputs are answered rightly, smoothly: [t]."""
    logits = problem.victim.logits(problem.ball.add(x, delta).flatten(0, 1))
    margin = margins(logits, y.flatten()).reshape(y.shape)
    size = logits.detach().std(1).reshape(y.shape).clamp_min(1e-6)  # victims differ in the size of their logits
    return torch.sigmoid(2 * margin / size).mean(1)


def meta_train(
    grounds: Sequence[Ground], plan: MetaPlan, progress: Callable[[str], None] = lambda text: None
) -> Optimiser:
    """The optimiser; on several processes (`accelerate launch`) each draws tasks of its own.

    Raises AuditError: no ground, or the loss isn't finite.
    """
    if not grounds:
        raise AuditError("no sources to meta-train on, expected one at least")
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(plan.seed)
    optimiser = Optimiser(plan.sees, plan.hidden)
    adam = torch.optim.Adam(optimiser.parameters(), plan.rate)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(adam, plan.rounds, plan.rate * 0.05)
    chance = torch.Generator().manual_seed(plan.seed * 1000 + accelerator.process_index)
    recent = 0.0
    for done in range(plan.rounds):
        ground, victim, tasks, problem = _draw(grounds, plan, chance)
        loss = _unroll(optimiser, adam, accelerator, problem, tasks, plan)
        if loss != loss:
            raise AuditError(f"{victim.name}: meta-training's loss isn't finite")
        rates.step()
        recent += 0.05 * (loss - recent) if done else loss
        progress(f"round {done + 1} of {plan.rounds}: {recent:.3f} answered rightly, {ground.source.name}")
    return optimiser.eval().requires_grad_(False)


def _draw(grounds: Sequence[Ground], plan: MetaPlan, chance: torch.Generator) -> tuple[Ground, Victim, Tasks, Problem]:
    def any_of(items: Sequence[object]) -> int:
        return int(torch.randint(len(items), (), generator=chance))

    ground = grounds[any_of(grounds)]
    victim = ground.victims[any_of(ground.victims)]
    n_classes = min(plan.classes[any_of(plan.classes)], ground.source.classes)
    n_tasks = max(1, min(plan.tasks, plan.coordinates // max(1, ground.source.x[0].numel())))
    tasks = draw(
        ground.source, n_tasks, n_classes, plan.shots[any_of(plan.shots)], max(1, plan.held // n_classes), chance
    )
    low, high = ground.eps
    eps = low + (high - low) * float(torch.rand((), generator=chance))
    ball = Ball(eps, "linf", ground.low, ground.high)
    return ground, victim, tasks, Problem(victim, tasks.x, tasks.y, ball, plan.objective)


def _unroll(
    optimiser: Optimiser, adam: torch.optim.Optimizer, accelerator: Accelerator, problem: Problem, tasks: Tasks,
    plan: MetaPlan,
) -> float:  # fmt: skip
    """One round: the tasks' steps, with an update of the optimiser at each truncation; the loss at the end."""
    x, y = (tasks.held_x, tasks.held_y) if plan.judged == "held" else (tasks.x, tasks.y)
    delta = problem.zero
    state = optimiser.begin(delta)
    last = 0.0
    for first in range(0, plan.steps, plan.cut):
        delta, state = delta.detach(), (state[0].detach(), state[1].detach())
        total = torch.zeros(())
        for k in range(first, min(first + plan.cut, plan.steps)):
            gradient = problem.gradient(delta.detach())
            delta, state = optimiser.step(delta, gradient, state, problem.ball)
            now = surrogate(problem, delta, x, y).mean()
            total = total + (k + 1) / plan.steps * now
            last = float(now.detach())
        adam.zero_grad()
        (total / plan.cut).backward()  # type: ignore[no-untyped-call]
        _together(optimiser, accelerator)
        nn.utils.clip_grad_norm_(optimiser.parameters(), 1.0)
        adam.step()
    return last


def _together(optimiser: Optimiser, accelerator: Accelerator) -> None:
    """Gradients as means over processes; few numbers, so without a wrapper."""
    if accelerator.num_processes > 1:
        for parameter in optimiser.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")


def meta_start(
    grounds: Sequence[Ground],
    plan: MetaPlan,
    rate: float = 0.125,
    progress: Callable[[str], None] = lambda text: None,
) -> Tensor:
    """MAML's first perturbation for images of one size, in units of eps: trained so that `plan.steps` of PGD from it do
    well on held-out images; first order."""
    chance = torch.Generator().manual_seed(plan.seed * 1000)
    start = torch.zeros(1, *grounds[0].source.shape)
    mean = torch.zeros_like(start)
    for done in range(plan.rounds):
        _, _, tasks, problem = _draw(grounds, plan, chance)
        eps = problem.ball.eps
        begin = problem.ball.project(start * eps).expand_as(problem.zero)
        delta = Pgd(rate)(problem, plan.steps, begin)[-1]
        moved = delta.detach().requires_grad_()
        loss = surrogate(problem, moved, tasks.held_x, tasks.held_y).mean()
        (slope,) = torch.autograd.grad(loss, moved)
        mean = 0.9 * mean + 0.1 * (slope * eps).sum(0, keepdim=True)
        stride = 0.1 * (1 - done / plan.rounds) + 0.01
        start = (start - stride * mean / mean.square().mean().sqrt().clamp_min(1e-12)).clamp(-1, 1)
        progress(f"round {done + 1} of {plan.rounds}: {float(loss.detach()):.3f} answered rightly")
    return start
