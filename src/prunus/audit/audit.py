"""The audit: for each network the strongest universal perturbations that a few images give, against all of them.

Attacks run at the eps asked for; the one that does best on the images for choosing makes the rest of the curve. All
perturbations are tried on all networks, so that one without gradients is judged by its twins' too.
"""

import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from prunus.audit.attacks import ATTACKS
from prunus.audit.attacks.steps import Learned
from prunus.audit.ball import Ball
from prunus.audit.data import Labelled, Split, split
from prunus.audit.objective import MARGIN, Objective, margins
from prunus.audit.optimiser import Optimiser, load
from prunus.audit.problem import Attack, Problem, Queries
from prunus.audit.report import ClassRow, Difference, ModelReport, Point, Rate, Report, Z, notes_on, rate
from prunus.audit.tasks import Source
from prunus.audit.victims import Victim
from prunus.errors import AuditError, PrunusError, PrunusWarning

Progress = Callable[[str], None]
FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0)  # of eps, for the curve
DEFAULT = ("learned", "pgd", "sga")


@final
@dataclass(frozen=True)
class AuditPlan:
    """How to audit. shots: images per class to fit, or `fit` of any class. steps: of each attack. attacks: names of
    ATTACKS, or "learned". queries: how many answers an attack may ask of a model without gradients, about. optimiser:
    None for the one that ships."""

    ball: Ball
    gate: float | None = None
    shots: int = 2
    fit: int | None = None
    steps: int = 20
    attacks: tuple[str, ...] = DEFAULT
    factors: tuple[float, ...] = FACTORS
    objective: Objective = MARGIN
    queries: int = 30_000
    seed: int = 0
    optimiser: Optimiser | None = None


@final
@dataclass(frozen=True, eq=False)
class Made:
    """A perturbation [...] made on a model at a factor of eps."""

    model: str
    attack: str
    factor: float
    delta: Tensor


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What pictures are drawn from: by model the strongest perturbation at eps, and the images that are judged with the
    answers that it gets."""

    judge: Source
    names: tuple[str, ...]
    ball: Ball
    strongest: Mapping[str, Tensor]
    answers: Mapping[str, Tensor]

    def archive(self) -> bytes:
        """The perturbations as an npz, by model."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: delta.numpy() for name, delta in self.strongest.items()}
        np.savez(stream, **arrays)
        return stream.getvalue()


Keep = Callable[[Report, Evidence], None]


def audit(
    victims: Sequence[Victim], data: Labelled, plan: AuditPlan, keep: Keep = lambda report, evidence: None,
    progress: Progress = lambda text: None,
) -> Report:  # fmt: skip
    """Audit networks that take the same images. keep: gets the report after each of them, so that what there is stays
    where one fails or the user stops.

    Raises AuditError: too few images, an unknown attack, a network whose gradients aren't finite or that answers no
    image rightly; the report with the reason was handed to `keep` before. PrunusError: as sessions do.
    Warns (PrunusWarning): of data outside of the range.
    """
    attacks = _attacks(plan)
    if plan.objective.target is not None and not 0 <= plan.objective.target < victims[0].classes:
        raise AuditError(f"target {plan.objective.target}: expected a class, 0 to {victims[0].classes - 1}")
    if plan.objective.target is not None and "deepfool" in attacks:
        raise AuditError("deepfool has no target class, expected other attacks with a target")
    if names := [v.name for i, v in enumerate(victims) if v.name in [w.name for w in victims[:i]]]:
        raise AuditError(f"{names[0]}: given twice, expected models of different names")
    work = _Work(split(data.source, plan.shots, plan.seed, plan.fit), data, plan, attacks, progress)
    if work.outside:
        warnings.warn(work.outside, PrunusWarning, stacklevel=2)
    report = work.report()
    for i, victim in enumerate(victims, 1):
        try:
            work.attack(victim)
        except PrunusError as error:
            if work.done:
                keep(work.report(str(error)), work.evidence())
            raise
        left = ", ".join(other.name for other in victims[i:])  # whatever stops us next, this report says so
        report = work.report(f"{left}: not audited" if left else "")
        keep(report, work.evidence())
    return report


def _attacks(plan: AuditPlan) -> dict[str, Attack]:
    found: dict[str, Attack] = {}
    for name in plan.attacks:
        if name == "learned":
            found[name] = Learned(plan.optimiser or load())
        elif name in ATTACKS:
            found[name] = ATTACKS[name]
        else:
            raise AuditError(f"attack {name!r}: expected some of learned, {', '.join(ATTACKS)}")
    if not found:
        raise AuditError(f"no attacks, expected some of learned, {', '.join(ATTACKS)}")
    return found


@final
class _Work:
    """An audit under way."""

    def __init__(
        self, parts: Split, data: Labelled, plan: AuditPlan, attacks: Mapping[str, Attack], progress: Progress
    ) -> None:
        self.parts, self.data, self.plan, self.attacks, self.progress = parts, data, plan, attacks, progress
        self.began = time.perf_counter()
        self.outside = _outside(data.source.x, plan.ball)
        self.done: list[Victim] = []
        self.seconds: dict[str, float] = {}
        self.spent: dict[str, tuple[int, int]] = {}  # answers and gradients taken to attack
        self.clean: dict[str, Tensor] = {}
        self.made: list[Made] = []
        self.fooled: dict[tuple[str, int], Tensor] = {}  # answers of a model to a perturbation, by its number

    def attack(self, victim: Victim) -> None:
        """Make perturbations of this model, and try them on all that there are, and all that there are on it."""
        start, plan = time.perf_counter(), self.plan
        clean = victim.classify(self.parts.judge.x)
        if not bool((clean == self.parts.judge.y).any()):
            raise AuditError(f"{victim.name}: answers no image rightly: are the images scaled as it takes them?")
        target = plan.objective.target
        if target is not None and not bool(((clean == self.parts.judge.y) & (clean != target)).any()):
            raise AuditError(f"{victim.name}: answers no image of a class other than {target}, the target, rightly")
        before = (victim.meter.images, victim.meter.gradients)
        found = self._strongest(victim)
        spent = (victim.meter.images - before[0], victim.meter.gradients - before[1])
        made = [*self.made, *found]
        fooled = {(victim.name, -1): self._random(victim)}
        for model in (*self.done, victim):
            for i, one in enumerate(made):
                if (model.name, i) not in self.fooled:
                    self.progress(f"{model.name}: perturbations of {one.model}")
                    ball = plan.ball.scaled(one.factor)
                    moved = ball.add(self.parts.judge.x[None], one.delta[None])[0]
                    fooled[model.name, i] = model.classify(moved)
        # only now: what a report is made from is of whole models, wherever one of them fails
        self.spent[victim.name], self.clean[victim.name] = spent, clean
        self.fooled |= fooled
        self.made = made
        self.done.append(victim)
        self.seconds[victim.name] = time.perf_counter() - start

    def _strongest(self, victim: Victim) -> list[Made]:
        plan = self.plan
        attacks = {
            n: a for n, a in self.attacks.items() if victim.differentiable or n not in ("deepfool", "sga", "sgd-uap")
        }
        tried = []
        for name, attack in attacks.items():
            for objective in self._objectives(victim):
                self.progress(f"{victim.name}: {name} at eps {plan.ball.eps:g}")
                tried.append((*self._fit(victim, attack, objective, plan.ball, len(attacks)), name, objective))
        if not tried:
            raise AuditError(f"{victim.name}: none of the attacks works without gradients, expected learned or pgd")
        _, delta, name, best = max(tried, key=lambda item: item[0])
        found = [Made(victim.name, name, 1.0, delta)]
        for factor in plan.factors:
            if factor == 1.0:
                continue
            ball = plan.ball.scaled(factor)
            if victim.differentiable:
                self.progress(f"{victim.name}: {name} at eps {ball.eps:g}")
                found.append(Made(victim.name, name, factor, self._fit(victim, attacks[name], best, ball, 1)[1]))
            else:  # queries are dear: the same one, longer or shorter
                found.append(Made(victim.name, name, factor, delta * factor))
        return found

    def _objectives(self, victim: Victim) -> tuple[Objective, ...]:
        """The plan's, and with gradients the same cut where an image is clearly fooled: without a floor those that are
        draw the perturbation to themselves, with one they leave it to the others; which is better differs."""
        wanted = self.plan.objective
        if not victim.differentiable or wanted.kappa != float("inf"):
            return (wanted,)
        with torch.no_grad():
            margin = margins(victim.logits(self.parts.fit.x), self.parts.fit.y).clamp_min(0).mean()
        return wanted, replace(wanted, kappa=max(0.5 * float(margin), 1e-3))

    def _fit(
        self, victim: Victim, attack: Attack, objective: Objective, ball: Ball, n_attacks: int
    ) -> tuple[tuple[float, float], Tensor]:
        """The best step on the images for choosing: (success, -loss) there, and the perturbation."""
        fit, choose, plan = self.parts.fit, self.parts.choose, self.plan
        queries = None
        if not victim.differentiable:
            each = plan.queries // (2 * len(fit.y) * plan.steps * n_attacks)
            queries = Queries(torch.Generator().manual_seed(plan.seed), max(1, each))
        problem = Problem(victim, fit.x[None], fit.y[None], ball, objective, queries)
        path = attack(problem, plan.steps)
        shown = sorted({len(path) - 1, *range(4, len(path), 5)})
        best: tuple[tuple[float, float], Tensor] | None = None
        for i in shown:
            logits = victim.logits(ball.add(choose.x[None], path[i])[0]).detach()
            hits = plan.objective.succeeded(logits.argmax(1), choose.y).float().mean()
            score = (float(hits), -float(plan.objective.losses(logits, choose.y).mean()))
            if best is None or score > best[0]:
                best = (score, path[i][0].detach())
        assert best is not None, "an attack has one step at least"
        return best

    def hits(self, model: str, i: int) -> tuple[Tensor, Tensor]:
        """Of perturbation i: which images count, those answered rightly (for a target, those not of it), and which of
        all are fooled."""
        y, target = self.parts.judge.y, self.plan.objective.target
        counts = self.clean[model] == y
        if target is not None:
            counts = counts & (y != target)
        return counts, counts & self.plan.objective.succeeded(self.fooled[model, i], y)

    def point(self, model: str, factor: float) -> tuple[Point, int]:
        """The strongest perturbation against a model at a factor of eps, or a smaller one's; and its number."""
        found = [i for i, made in enumerate(self.made) if made.factor <= factor]
        best = max(found, key=lambda i: int(self.hits(model, i)[1].sum()))
        counts, fooled = self.hits(model, best)
        made = self.made[best]
        success = rate(int(fooled.sum()), int(counts.sum()))
        return Point(self.plan.ball.eps * factor, success, made.attack, made.model), best

    def report(self, failure: str = "") -> Report:
        """Of the models that are done."""
        plan, parts = self.plan, self.parts
        models = tuple(self._model(victim) for victim in self.done)
        own = [
            next(i for i, made in enumerate(self.made) if (made.model, made.factor) == (v.name, 1.0)) for v in self.done
        ]
        transfer = tuple(tuple(self._share(victim.name, i) for victim in self.done) for i in own)
        ball = plan.ball
        return Report(
            self.data.source.name, ball.norm, ball.eps, ball.low, ball.high, plan.objective.target, plan.gate,
            len(parts.fit.y), len(parts.choose.y), len(parts.judge.y), models, transfer,
            ((self.outside,) if self.outside else ()) + notes_on(models),
            time.perf_counter() - self.began, failure,
        )  # fmt: skip

    def _share(self, model: str, i: int) -> float:
        counts, fooled = self.hits(model, i)
        return int(fooled.sum()) / max(1, int(counts.sum()))

    def _model(self, victim: Victim) -> ModelReport:
        name, plan, y = victim.name, self.plan, self.parts.judge.y
        factors = sorted({1.0, *plan.factors})
        curve = tuple(self.point(name, factor)[0] for factor in factors)
        at_eps, number = self.point(name, 1.0)
        over = plan.gate is not None and at_eps.success.share > plan.gate
        images, gradients = self.spent[name]
        return ModelReport(
            name, "gradients" if victim.differentiable else "queries", rate(int((self.clean[name] == y).sum()), len(y)),
            curve, at_eps, self._floor(victim), self._classes(name, number), self._against_first(name, number), images,
            gradients, self.seconds.get(name, 0.0), None if plan.gate is None else not over,
        )  # fmt: skip

    def _floor(self, victim: Victim) -> Rate:
        counts, fooled = self.hits(victim.name, -1)
        return rate(int(fooled.sum()), int(counts.sum()))

    def _random(self, victim: Victim) -> Tensor:
        """Its answers to random signs."""
        problem = Problem(victim, self.parts.judge.x[None], self.parts.judge.y[None], self.plan.ball)
        delta = ATTACKS["random"](problem, 1)[0]
        return victim.classify(self.plan.ball.add(problem.x, delta)[0])

    def _classes(self, model: str, i: int) -> tuple[ClassRow, ...]:
        counts, fooled = self.hits(model, i)
        y, answers, rows = self.parts.judge.y, self.fooled[model, i], []
        for label in torch.unique(y).tolist():
            own = y == label
            into = answers[own & fooled]
            becomes = self._name(int(into.mode().values)) if len(into) else ""
            rows.append(
                ClassRow(label, self._name(label), rate(int((own & fooled).sum()), int((own & counts).sum())), becomes)
            )
        return tuple(rows)

    def _name(self, label: int) -> str:
        return self.data.names[label] if label < len(self.data.names) else str(label)

    def _against_first(self, model: str, i: int) -> Difference | None:
        first = self.done[0].name
        if model == first:
            return None
        other_counts, other = self.hits(first, self.point(first, 1.0)[1])
        counts, fooled = self.hits(model, i)
        both = counts & other_counts
        if not bool(both.any()):
            return None
        d = fooled[both].float() - other[both].float()
        half = Z * float(d.std(correction=0)) / len(d) ** 0.5
        return Difference(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half)

    def evidence(self) -> Evidence:
        """For pictures."""
        found = {victim.name: self.point(victim.name, 1.0)[1] for victim in self.done}
        return Evidence(
            self.parts.judge, tuple(self._name(c) for c in range(self.done[0].classes)), self.plan.ball,
            {name: self.made[i].delta for name, i in found.items()},
            {name: torch.stack([self.clean[name], self.fooled[name, i]]) for name, i in found.items()},
        )  # fmt: skip


def _outside(x: Tensor, ball: Ball) -> str:
    """What to say of images that aren't within the range: there perturbations have half of their effect."""
    slack = 1e-3 * (ball.high - ball.low)
    share = float(((x < ball.low - slack) | (x > ball.high + slack)).float().mean())
    if share < 1e-3:
        return ""
    return (
        f"{share:.1%} of the values of the data aren't in the range {ball.low:g},{ball.high:g}, where perturbations "
        f"are cut: the data are from {float(x.min()):.4g} to {float(x.max()):.4g}"
    )


def without_gradients(victim: Victim) -> Victim:
    """The same, attacked by queries."""
    return replace(victim, differentiable=False)
