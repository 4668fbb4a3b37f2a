"""Search by a policy that learns from its own trials.

Source: Williams, "Simple Statistical Gradient-Following Algorithms", Machine Learning 8, 1992 (REINFORCE); as a search
for a scheme per layer: "Automatic Mapping of the Best-Suited DNN Pruning Schemes", TODAES 27(5), 2022,
arXiv:2111.11581, section 4. Ours: the baseline runs on from step to step, and rewards are scaled by the
largest deviation of a step.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from prunus.errors import CheckpointError
from prunus.mapping.policy import Policy
from prunus.mapping.search import Accuracy, Found, Mapping, Progress, best_of, check_budget, digest, labels
from prunus.mapping.space import Space
from prunus.runtime.atomic import write_atomically
from prunus.training.snapshot import optimizer_of, set_optimizer, set_weights, weights_of

RUNNING = 0.8  # how much of the baseline stays in a step
LEAST = 1e-4  # deviation of rewards that is told from none
FORMAT = "1"


@final
@dataclass(frozen=True)
class Reinforce:
    """steps: of the optimiser. samples: mappings tried in each. entropy: weight of its bonus, which falls to 0."""

    steps: int = 200
    samples: int = 6
    rate: float = 1e-2
    entropy: float = 0.5
    seed: int = 0


def search(
    space: Space,
    accuracy: Accuracy,
    budget_ms: float,
    how: Reinforce | None = None,
    start: Mapping | None = None,
    state: Path | None = None,
    progress: Callable[[Progress], None] = lambda done: None,
) -> Found:
    """The best mapping tried; chance depends on seed and step only.

    start: tried first, and what the policy leans to. state: a file from which a search that was stopped goes on; it is
    written after each step.

    Raises BudgetError: no mapping keeps the budget. CheckpointError: `state` is of another search, or damaged.
    OutputError: it can't be written.
    """
    check_budget(space, budget_ms)
    run = _Run(space, accuracy, budget_ms, how or Reinforce(), start, progress)
    who = json.dumps(
        {"labels": digest(labels(space)), "budget_ms": budget_ms, "start": start, **asdict(run.how)}, sort_keys=True
    )
    if state is not None and state.exists():
        run.load(state, who)
    if start is not None:
        run.attempt(start)
    while run.step < run.how.steps:
        run.advance()
        if state is not None:
            run.save(state, who)
    run.attempt(run.policy.likeliest())
    assert run.best is not None
    return run.best


@final
class _Run:
    """A search under way."""

    def __init__(
        self, space: Space, accuracy: Accuracy, budget_ms: float, how: Reinforce, start: Mapping | None,
        progress: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self.space, self.accuracy, self.budget_ms, self.how = space, accuracy, budget_ms, how
        self.progress = progress
        self.policy = Policy(space, how.seed, start)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), how.rate)
        self.step = 0
        self.baseline = self.deviation = 0.0
        self.best: Found | None = None

    def attempt(self, mapping: Mapping) -> float:
        """Try a mapping; its reward."""
        found = Found(mapping, self.accuracy(mapping), self.space.ms(mapping))
        self.best = best_of([found] if self.best is None else [self.best, found], self.budget_ms)
        return found.reward(self.budget_ms)

    def advance(self) -> None:
        """Try some mappings, and learn from them."""
        how = self.how
        generator = torch.Generator().manual_seed(how.seed * 1_000_003 + self.step)
        mappings = self.policy.sample(how.samples, generator)
        rewards = []
        for i, mapping in enumerate(mappings.tolist()):
            done = self.step * how.samples + i
            self.progress(Progress(done, how.steps * how.samples, self.best))
            rewards.append(self.attempt(tuple(mapping)))
        self._learn(mappings, torch.tensor(rewards))
        self.step += 1

    def _learn(self, mappings: Tensor, rewards: Tensor) -> None:
        mean, deviation = float(rewards.mean()), float(rewards.std(correction=0))
        part = RUNNING if self.step else 0.0
        self.baseline = part * self.baseline + (1 - part) * mean
        self.deviation = max(self.deviation, deviation)  # not today's: luck would count the more the less is left
        gains = (rewards - self.baseline) / max(self.deviation, LEAST)
        bonus = self.how.entropy * (1 - self.step / self.how.steps)
        logs, entropies = self.policy.judge(mappings)
        loss = -(gains * logs).mean() - bonus * entropies.mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def save(self, path: Path, who: str) -> None:
        tensors = {f"policy/{name}": tensor for name, tensor in weights_of(self.policy).items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_of(self.optimizer).items()}
        best = None if self.best is None else asdict(self.best)
        said = {"step": self.step, "baseline": self.baseline, "deviation": self.deviation, "best": best}
        header = {"prunus": FORMAT, "identity": who, "said": json.dumps(said)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(tensors, header))

    def load(self, path: Path, who: str) -> None:
        try:
            header, tensors = _read(path)
            said: dict[str, Any] = json.loads(header["said"])
            theirs = header["identity"]
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path}: not a search that can be read: {error}; without that file it starts again"
            ) from error
        if theirs != who:
            raise CheckpointError(
                f"{path}: of another search ({_difference(theirs, who)}); without that file it starts again"
            )
        set_weights(self.policy, _part(tensors, "policy/"))
        set_optimizer(self.optimizer, _part(tensors, "optimizer/"))
        self.step, self.baseline, self.deviation = said["step"], said["baseline"], said["deviation"]
        if said["best"] is not None:
            mapping = tuple(said["best"]["mapping"])
            self.best = Found(mapping, said["best"]["accuracy"], self.space.ms(mapping))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata() or {}
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict


def _part(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _difference(theirs: str, ours: str) -> str:
    there, here = json.loads(theirs), json.loads(ours)
    key = next(key for key in here if there.get(key) != here[key])
    return "other layers or options" if key == "labels" else f"{key} {there.get(key)}, expected {here[key]}"
