"""The learned optimisers of bench.uap, kept in out/uap; as a program, the one that ships.

    [accelerate launch] python -m bench.uap_meta [--output src/prunus/audit/optimiser.safetensors] [--seed 0]

"mixed" is trained on all sources but Fashion-MNIST, which is what they are judged on; "sizes" on those that aren't
28x28; "fashion" on that alone. Victims in training are of other seeds than those in choosing and reporting.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.uap_sources import KEPT, MET, source, victim
from prunus.audit.attacks.steps import Pgd
from prunus.audit.ball import Ball
from prunus.audit.meta import Ground, MetaPlan, meta_start, meta_train
from prunus.audit.optimiser import SHIPPED, Optimiser, load, save
from prunus.audit.problem import Problem
from prunus.audit.tasks import draw

EASY, HARD = 0.6, 1.6  # times the eps at which PGD fools 40 %
RECIPES = {
    "mixed": ("digits", "glyphs16", "glyphs24", "mnist", "photos"),
    "sizes": ("digits", "glyphs16", "glyphs24", "photos"),
    "fashion": ("fashion",),
}  # fmt: skip
PLAN = MetaPlan(rounds=160)


def grounds(name: str) -> list[Ground]:
    """A source for meta-training, once for each kind of victim, in balls neither hopeless nor enough for it."""
    found = []
    for kind in MET:
        images, attacked = source(name, "train"), victim(kind, name, "train")
        eps = middle(name, kind)
        found.append(Ground(images, (attacked,), (EASY * eps, HARD * eps)))
    return found


def middle(name: str, kind: str) -> float:
    """The eps at which PGD with 4 images of two classes fools 40 % of others; kept."""
    path = KEPT / f"middle-{name}-{kind}.json"
    if not path.exists():
        attacked = victim(kind, name, "train")
        tasks = draw(source(name, "train"), 6, 2, 2, 6, torch.Generator().manual_seed(0))
        x, y = tasks.held_x.flatten(0, 1), tasks.held_y
        right = (attacked.classify(x) == y.flatten()).reshape(y.shape)
        low, high = 0.004, 0.6
        for _ in range(6):
            eps = (low * high) ** 0.5
            problem = Problem(attacked, tasks.x, tasks.y, Ball(eps))
            moved = problem.ball.add(tasks.held_x, Pgd(0.25)(problem, 8)[-1])
            fooled = right & (attacked.classify(moved.flatten(0, 1)).reshape(y.shape) != y)
            low, high = (low, eps) if float(fooled.sum() / right.sum()) > 0.4 else (eps, high)
        path.write_text(json.dumps(eps))
    return float(json.loads(path.read_text()))


def made(recipe: str, judged: str, seed: int, sees: str = "local") -> Optimiser:
    """Meta-train; what is to be known goes into the file."""
    plan = MetaPlan(judged="held" if judged == "held" else "fit", seed=seed, rounds=PLAN.rounds, sees=sees)
    began = time.process_time()

    def told(text: str) -> None:
        if int(text.split()[1]) % 50 == 0:
            print(f"  {recipe} {judged} {seed}: {text}", flush=True)

    found = meta_train([one for name in RECIPES[recipe] for one in grounds(name)], plan, told)
    found.about = {
        "made_by": "python -m bench.uap_meta", "seed": str(seed), "sources": ", ".join(RECIPES[recipe]),
        "judged": judged,
        "rounds": str(plan.rounds), "steps": str(plan.steps), "cpu_s": f"{time.process_time() - began:.0f}",
    }  # fmt: skip
    return found


def optimiser(recipe: str, judged: str, seed: int, sees: str = "local") -> Optimiser:
    """A kept one, or a new one. sees: as `Optimiser`; "plain" is the paper's."""
    path = KEPT / f"optimiser-{recipe}-{judged}-{'' if sees == 'local' else f'{sees}-'}{seed}.safetensors"
    KEPT.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            save(made(recipe, judged, seed, sees), path)
    return load(path)


def start_of(name: str, seed: int) -> Tensor:
    """MAML's first perturbation for a source."""
    path = KEPT / f"start-{name}-{seed}.safetensors"
    KEPT.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            plan = MetaPlan(rounds=PLAN.rounds // 2, seed=seed, steps=10)
            save_file({"start": meta_start(grounds(name), plan)}, path)
    return load_file(path)["start"]


def main() -> None:
    """Make the one that ships."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    alone = state.num_processes == 1
    found = optimiser("mixed", "held", options.seed) if alone else made("mixed", "held", options.seed)
    if state.is_main_process:
        save(found, options.output)


if __name__ == "__main__":
    main()
