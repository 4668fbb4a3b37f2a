"""Universal perturbations: the learned optimiser against its baselines, and what an audit costs.

    PRUNUS_DATA=folder python -m bench.uap [--only TEXT ...] [--list]     # appends to bench/results/uap.jsonl

A row that was measured is skipped; delete its line to measure it again. Victims and optimisers are trained first and
kept in out/uap. eps, rates and losses of baselines are chosen with victims and images for choosing; what is reported
is of other victims (other seeds, and a kind of network that no optimiser met) and of test images. Exit status: 0 all
goals are met, 1 one is short.

Rows: `tasks SOURCE seed N` has success by step for every method at two sizes of the ball: where PGD on the paper's
loss (margins cut at 0) fools about 40 % on tasks for choosing, and where the best PGD (over losses and rates) does.
`audit` and `art` rows have seconds. The optimiser that ships is `python -m bench.uap_meta`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import store
from bench.uap_meta import optimiser, start_of
from bench.uap_sources import KEPT, source, victim
from prunus.audit.attacks.deepfool import DeepFoolUap
from prunus.audit.attacks.steps import Learned, Maml, Pgd
from prunus.audit.attacks.stochastic import RandomSigns, Sga, SgdUap
from prunus.audit.ball import Ball
from prunus.audit.objective import MARGIN, Objective
from prunus.audit.problem import Attack, Problem
from prunus.audit.tasks import Tasks, draw
from prunus.audit.victims import Victim

RESULTS = store.RESULTS / "uap.jsonl"
SEEDS = (0, 1, 2)
ATTACKED = ("cnn", "lenet", "wide")  # the last one no optimiser met
SHAPES = ((2, 2), (5, 1))  # of tasks: classes and shots
TASKS, JUDGED, STEPS = 6, 16, 20
AT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
PAPER, ENTROPY = Objective(kappa=0.0), Objective("cross-entropy")
RATES = (0.25, 0.125, 0.0625)
Row = dict[str, Any]


def drawn(name: str, part: str, shape: tuple[int, int], seed: int, tasks: int = TASKS) -> Tasks:
    """Tasks of a part of a source."""
    chance = torch.Generator().manual_seed(1000 * seed + shape[0])
    return draw(source(name, part), tasks, *shape, JUDGED // shape[0], chance)


def success(problem: Problem, tasks: Tasks, delta: Tensor) -> list[float]:
    """By task: of the images to judge that are answered rightly when clean, the share that isn't with delta."""
    x, y, v = tasks.held_x.flatten(0, 1), tasks.held_y, problem.victim
    right = (v.classify(x) == y.flatten()).reshape(y.shape)
    fooled = right & (v.classify(problem.ball.add(tasks.held_x, delta).flatten(0, 1)).reshape(y.shape) != y)
    return (fooled.sum(1) / right.sum(1).clamp_min(1)).tolist()


@dataclass(frozen=True)
class Chosen:
    """The ball, and loss and rate of PGD, chosen for a kind of victim and tasks."""

    eps: float
    objective: Objective
    rate: float


@cache
def chosen(name: str, kind: str, shape: tuple[int, int], paper: bool) -> Chosen:
    """Where PGD fools about 40 % on tasks for choosing: on the paper's loss, or with what is best there; kept."""
    path = KEPT / f"chosen-{name}-{kind}-{shape[0]}x{shape[1]}-{'paper' if paper else 'best'}.json"
    if path.exists():
        eps, loss, rate = json.loads(path.read_text())
        return Chosen(eps, {"paper": PAPER, "margin": MARGIN, "cross-entropy": ENTROPY}[loss], rate)
    tasks, found = drawn(name, "choose", shape, 9, 8), victim(kind, name, "choose")
    ways = [(PAPER, r) for r in RATES] if paper else [(loss, r) for loss in (MARGIN, ENTROPY) for r in RATES]

    def rate_of(eps: float, way: tuple[Objective, float]) -> float:
        problem = Problem(found, tasks.x, tasks.y, Ball(eps), way[0])
        return mean(success(problem, tasks, Pgd(way[1])(problem, STEPS)[-1]))

    low, high = (0.02, 0.6) if kind == "lenet" or paper else (0.01, 0.3)
    for _ in range(5):
        eps = (low * high) ** 0.5
        low, high = (low, eps) if rate_of(eps, ways[0]) > 0.4 else (eps, high)
    best = max(ways, key=lambda way: rate_of(eps, way))
    path.write_text(json.dumps([eps, "paper" if paper else best[0].kind, best[1]]))
    return Chosen(eps, *best)


def task_row(name: str, seed: int, measure: Callable[[Victim, Tasks, Chosen, str, int], Row]) -> Row:
    """Success by step of all methods, means over tasks; and by task at the last step."""
    cells = []
    for kind in ATTACKED:
        found = victim(kind, name, "test", seed)
        for shape in SHAPES:
            tasks = drawn(name, "test", shape, seed)
            for paper in (True, False):
                choice = chosen(name, kind, shape, paper)
                cells.append({
                    "victim": kind, "classes": shape[0], "shots": shape[1], "at": "paper" if paper else "best",
                    "eps": choice.eps, "methods": measure(found, tasks, choice, name, seed),
                })  # fmt: skip
    return {"cells": cells, "steps": AT}


def measured(found: Victim, tasks: Tasks, choice: Chosen, name: str, seed: int) -> Row:
    """By method what `judged` says."""
    problem = Problem(found, tasks.x, tasks.y, Ball(choice.eps))
    pressed = replace(problem, objective=choice.objective)
    methods: dict[str, tuple[Attack, Problem]] = {
        "pgd": (Pgd(choice.rate), pressed), "sgd-uap": (SgdUap(), replace(problem, objective=ENTROPY)),
        "sga": (Sga(), replace(problem, objective=ENTROPY)), "deepfool": (DeepFoolUap(), problem),
        "random": (RandomSigns(), problem),
        "maml": (Maml(start_of(name, seed), choice.rate), pressed),
        "maml, mnist": (Maml(start_of("mnist", seed), choice.rate), pressed),
        "learned": (Learned(optimiser("mixed", "held", seed)), problem),
        "l2o": (Learned(optimiser("mixed", "fit", seed)), problem),
    }  # fmt: skip
    return {method: judged(method, *way, tasks) for method, way in methods.items()}


def from_elsewhere(found: Victim, tasks: Tasks, choice: Chosen, name: str, seed: int) -> Row:
    """As `measured`, of optimisers trained on the source itself and on other sizes only."""
    problem = Problem(found, tasks.x, tasks.y, Ball(choice.eps))
    recipes = {"learned, same source": name, "learned, other sizes": "sizes"}
    return {
        method: judged(method, Learned(optimiser(recipe, "held", seed)), problem, tasks)
        for method, recipe in recipes.items()
    }  # fmt: skip


def plainly(found: Victim, tasks: Tasks, choice: Chosen, name: str, seed: int) -> Row:
    """As `measured`, of optimisers that are told as little as the paper's."""
    problem = Problem(found, tasks.x, tasks.y, Ball(choice.eps))
    trained = {"learned, plain": "held", "l2o, plain": "fit"}
    return {
        method: judged(method, Learned(optimiser("mixed", how, seed, "plain")), problem, tasks)
        for method, how in trained.items()
    }  # fmt: skip


def judged(method: str, attack: Attack, problem: Problem, tasks: Tasks) -> Row:
    """Success after AT steps, by task after the last one, milliseconds a step and task."""
    if method == "deepfool":  # slow, and few images are soon fooled: three tasks, five passes
        problem = replace(problem, x=problem.x[:3], y=problem.y[:3])
        tasks = Tasks(tasks.x[:3], tasks.y[:3], tasks.held_x[:3], tasks.held_y[:3])
    began = time.perf_counter()
    path = attack(problem, 5 if method == "deepfool" else STEPS)
    spent = time.perf_counter() - began
    by_task = [success(problem, tasks, path[min(k, len(path)) - 1]) for k in AT]
    return {
        "success": [round(mean(values), 4) for values in by_task], "tasks": [round(v, 4) for v in by_task[-1]],
        "ms": 1000 * spent / len(path) / len(problem.y),
    }  # fmt: skip


CASES: dict[str, Callable[[], Row]] = {}
for _seed in SEEDS:
    CASES[f"tasks fashion seed {_seed}"] = partial(task_row, "fashion", _seed, measured)
    CASES[f"sources fashion seed {_seed}"] = partial(task_row, "fashion", _seed, from_elsewhere)
    CASES[f"plain fashion seed {_seed}"] = partial(task_row, "fashion", _seed, plainly)


def further() -> dict[str, Callable[[], Row]]:
    """Rows of audits."""
    from bench import uap_audits

    return {
        "art": uap_audits.against_art, "audit mnist": uap_audits.audit_mnist, "audit lite0": uap_audits.audit_lite0,
        "harden": uap_audits.hardened,
    }  # fmt: skip


def gathered(rows: dict[str, Row], at: str, what: str = "tasks") -> list[Row]:
    """Cells of all seeds at one of the two sizes."""
    found = [cell for seed in SEEDS for cell in rows.get(f"{what} fashion seed {seed}", {}).get("cells", ())]
    return [cell for cell in found if cell["at"] == at]


def over_tasks(cells: list[Row], method: str) -> np.ndarray:
    """Success after the last step, task by task."""
    return np.array([v for cell in cells for v in cell["methods"][method]["tasks"]])


def by_step(cells: list[Row], method: str) -> np.ndarray:
    """Mean over cells, after AT steps."""
    return np.array([cell["methods"][method]["success"] for cell in cells]).mean(0)


def interval(a: np.ndarray, b: np.ndarray, of: Callable[[float, float], float]) -> tuple[float, float]:
    """95 % of a function of two means, resampling pairs of tasks."""
    chance = np.random.default_rng(0)
    chosen_ = chance.integers(0, len(a), (2000, len(a)))
    values = [of(float(a[i].mean()), float(b[i].mean())) for i in chosen_]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def steps_to(curve: np.ndarray, goal: float) -> float:
    """The first of AT steps that reaches it, between two of them by interpolation; infinite where none does."""
    for i, value in enumerate(curve):
        if value >= goal:
            if i == 0:
                return float(AT[0])
            share = (goal - curve[i - 1]) / (value - curve[i - 1])
            return AT[i - 1] + share * (AT[i] - AT[i - 1])
    return float("inf")


@dataclass(frozen=True)
class Goal:
    """A row of the table: what was found, whether that is enough."""

    name: str
    found: str
    met: bool


def outer_loss(which: str, held: np.ndarray, fit: np.ndarray) -> Goal:
    """What it brings to judge on held-out images, task by task."""
    low, high = interval(held, fit, lambda a, b: a - b)
    points = f"{100 * (held - fit).mean():+.1f} points ({100 * low:+.1f}..{100 * high:+.1f})"
    return Goal(f"outer loss on held-out images over plain L2O{which}", points, float(held.mean()) > float(fit.mean()))


def goals(rows: dict[str, Row]) -> list[Goal]:
    """All that can be said of the rows there are."""
    found = list[Goal]()
    for at, told in (("paper", "PGD on the paper's loss"), ("best", "the best PGD")):
        cells = gathered(rows, at)
        if not cells:
            continue
        ours, theirs = over_tasks(cells, "learned"), over_tasks(cells, "pgd")
        low, high = interval(ours, theirs, lambda a, b: a / b)
        ratio = float(ours.mean() / theirs.mean())
        found.append(Goal(
            f"success over {told}, {len(cells)} cells, {len(ours)} tasks",
            f"{ours.mean():.3f} to {theirs.mean():.3f}: {ratio:.2f} times ({low:.2f}..{high:.2f}), goal 1.5",
            ratio >= 1.5,
        ))  # fmt: skip
    if cells := gathered(rows, "best"):
        for other in ("pgd", "l2o", "maml", "maml, mnist"):
            goal = float(by_step(cells, other)[-1])
            steps = steps_to(by_step(cells, "learned"), goal)
            ms = (mean(c["methods"][m]["ms"] for c in cells) for m in ("learned", other))
            own_ms, other_ms = ms
            fewer = (
                f"{steps:.1f}, {1 - steps / STEPS:.0%} fewer (time {1 - steps * own_ms / (STEPS * other_ms):.0%} less)"
                if steps <= STEPS
                else f"not reached: {by_step(cells, 'learned')[-1]:.3f} of {goal:.3f}"
            )
            found.append(Goal(f"steps to what {other} reaches in {STEPS}", f"{fewer}, goal 37 %",
                              steps <= 0.63 * STEPS))  # fmt: skip
        found.append(outer_loss("", over_tasks(cells, "learned"), over_tasks(cells, "l2o")))
    if cells := gathered(rows, "best", "plain"):
        held, fit = (over_tasks(cells, method) for method in ("learned, plain", "l2o, plain"))
        found.append(outer_loss(", told as little as the paper's", held, fit))
    if cells := gathered(rows, "best", "sources"):
        ours, same = over_tasks(cells, "learned, other sizes"), over_tasks(cells, "learned, same source")
        found.append(Goal(
            "trained on other sizes only, over trained on the same source", f"{ours.mean():.3f} to {same.mean():.3f}, "
            "goal within 10 %", ours.mean() >= 0.9 * same.mean(),
        ))  # fmt: skip
    if row := rows.get("audit mnist"):
        found.append(
            Goal("audit of 3 variants of a digit network", f"{row['seconds']:.0f} s, goal 60", row["seconds"] <= 60)
        )
    if row := rows.get("audit lite0"):
        found.append(Goal("audit of EfficientNet-lite0", f"{row['seconds']:.0f} s, goal 600", row["seconds"] <= 600))
    if row := rows.get("art"):
        gap = abs(row["prunus"]["success"] - row["art"]["success"])
        faster = row["art"]["seconds"] / row["prunus"]["seconds"]
        found.append(Goal(
            "DeepFool UAP beside ART's", f"{row['prunus']['success']:.3f} to {row['art']['success']:.3f}, "
            f"{faster:.1f} times as fast", gap <= 0.03 and faster > 1,
        ))  # fmt: skip
    if row := rows.get("harden"):
        found.append(Goal("fine-tune under the mask", f"success {row['before']:.3f} -> {row['after']:.3f}, accuracy "
                          f"{row['accuracy_before']:.3f} -> {row['accuracy_after']:.3f}",
                          row["after"] < row["before"]))  # fmt: skip
    return found


def main() -> int:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], metavar="TEXT")
    parser.add_argument("--list", action="store_true", help="name the rows and whether they are measured")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = CASES | further()
    known = store.latest(store.read(RESULTS))
    if options.list:
        print("\n".join(f"{'measured' if key in known else 'missing '} {key}" for key in cases))
        return 0
    for key, measure in cases.items():
        if key in known or not any(text in key for text in options.only):
            continue
        print(f"{key} ...", flush=True)
        cpu = time.process_time()
        row = measure()
        known[key] = {"key": key, **row, "cpu_s": round(time.process_time() - cpu, 1), **store.stamp()}
        store.append(RESULTS, json.loads(json.dumps(known[key])))
    found = goals(known)
    for goal in found:
        print(f"{'ok   ' if goal.met else 'SHORT'} {goal.name}: {goal.found}")
    return 0 if all(goal.met for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
