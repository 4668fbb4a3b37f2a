"""The classic universal perturbation: DeepFool steps of one image after the other, added up and projected."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from prunus.audit.problem import Problem
from prunus.audit.victims import Victim
from prunus.errors import AuditError


@final
@dataclass(frozen=True)
class DeepFoolUap:
    """A step is a pass over the images in random order; those that are fooled already are passed by. overshoot: of a
    DeepFool step. inner: how many of them for one image. rivals: how many classes next to the answer are tried.
    Source: Moosavi-Dezfooli et al., CVPR 2017, arXiv:1610.08401; DeepFool: CVPR 2016, arXiv:1511.04599.
    """

    overshoot: float = 0.02
    inner: int = 10
    rivals: int = 10
    seed: int = 0

    def __call__(self, problem: Problem, steps: int) -> list[Tensor]:
        """The perturbations after each pass; no further ones once all images are fooled.

        Raises AuditError: a victim without gradients, or a target.
        """
        if not problem.victim.differentiable or problem.objective.target is not None:
            raise AuditError(f"{problem.victim.name}: DeepFool needs gradients and has no target class")
        chance = torch.Generator().manual_seed(self.seed)
        paths = [self._one(problem, task, steps, chance) for task in range(len(problem.y))]
        longest = max(len(path) for path in paths)
        return [torch.cat([path[min(i, len(path) - 1)] for path in paths]) for i in range(longest)]

    def _one(self, problem: Problem, task: int, steps: int, chance: torch.Generator) -> list[Tensor]:
        victim, ball, x = problem.victim, problem.ball, problem.x[task]
        clean = victim.classify(x)
        delta, path = problem.zero[task : task + 1], list[Tensor]()
        for _ in range(steps):
            for i in torch.randperm(len(x), generator=chance).tolist():
                moved = ball.add(x[None, i : i + 1], delta)[0]
                found = self._minimal(victim, moved, int(clean[i]))
                if found is not None:
                    delta = ball.project(delta + found)
            path.append(delta)
            if bool((victim.classify(ball.add(x[None], delta)[0]) != clean).all()):
                break
        return path

    def _minimal(self, victim: Victim, x: Tensor, label: int) -> Tensor | None:
        """The least that changes the answer for x [1, ...], as linear pieces say; None where it is another already."""
        moved, begun = x, False
        for _ in range(self.inner):
            logits, slopes = _slopes(victim, moved, label, self.rivals)
            if int(logits.argmax()) != label:
                break
            begun = True
            gaps = (logits[label] - logits[slopes.classes]).clamp_min(1e-6)
            lengths = slopes.ways.flatten(1).norm(dim=1).clamp_min(1e-8)
            nearest = int((gaps / lengths).argmin())
            way = slopes.ways[nearest] * (gaps[nearest] + 1e-6) / lengths[nearest] ** 2
            moved = moved + way[None]
        if not begun or int(victim.classify(moved)[0]) == label:
            return None  # nothing to do, or nothing that helps
        return (1 + self.overshoot) * (moved - x)


@final
@dataclass(frozen=True, eq=False)
class _Slopes:
    """classes [k], and the gradients [k, ...] of their logits over the answer's."""

    classes: Tensor
    ways: Tensor


def _slopes(victim: Victim, x: Tensor, label: int, rivals: int) -> tuple[Tensor, _Slopes]:
    """Logits [classes] of x [1, ...], and slopes of the best rivals, by one backward pass over copies."""
    with torch.no_grad():
        logits = victim.logits(x)[0]
    order = logits.argsort(descending=True)
    classes = order[order != label][:rivals]
    copies = x.detach().expand(len(classes), *x.shape[1:]).clone().requires_grad_()
    with torch.enable_grad():
        found = victim.logits(copies)
        (ways,) = torch.autograd.grad((found.gather(1, classes[:, None])[:, 0] - found[:, label]).sum(), copies)
    victim.meter.gradients += len(classes)
    if not bool(torch.isfinite(ways).all()):
        raise AuditError(f"{victim.name}: its gradient has values that aren't finite: it can't be attacked so")
    return logits, _Slopes(classes, ways)
