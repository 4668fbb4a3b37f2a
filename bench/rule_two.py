"""Which of pattern and block-punched a 3x3 convolution is to get, by how hard the data set is: rule 2 of the mapping.

    python -m bench.rule_two [--only TEXT ...] [--share 1/2]   # appends to bench/results/rule_two.jsonl

The VGG-class network of bench.fashion, all 3x3 convolutions but the first pruned in one of the two ways, on an easy
data set (MNIST: 4,000 digits, more epochs over them) and on a hard one (Fashion-MNIST). Rows of Fashion-MNIST are those
of bench.training and bench.mapped, where they are trained. Measured rows are skipped. The table says by how many points
pattern is the better, and whether that is more than seeds differ by.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from bench import fashion, mapped, store, training
from prunus.demo.data import load_images
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "rule_two.jsonl"
NETWORK = "vgg"
SCHEMES = ("pattern:4", "punched:8x4")
SPARSITIES = (0.8, 0.9, 0.95)
SEEDS = training.SEEDS
EASY, HARD = "mnist", "fashion"
DENSE, SPARSIFY, RECOVER = fashion.Plan(60, 0.1), 15, 45


@dataclass(frozen=True)
class Case:
    """A network pruned for the easy data set."""

    scheme: str
    sparsity: float
    seed: int

    @property
    def key(self) -> str:
        """The row's name."""
        return f"{EASY} {NETWORK} {self.scheme} {self.sparsity:g} seed {self.seed}"


def cases() -> list[Case]:
    """Seed by seed."""
    return [Case(scheme, sparsity, seed) for seed in SEEDS for sparsity in SPARSITIES for scheme in SCHEMES]


def digits() -> fashion.Data:
    """MNIST as bench.fashion has its images; the test images stand for those to choose by, which nothing here uses."""
    images = load_images(EASY)
    x, y, test_x, test_y = map(torch.from_numpy, (images.train_x, images.train_y, images.test_x, images.test_y))
    return fashion.Data(x, y, test_x, test_y, test_x, test_y)


def dense(seed: int, data: fashion.Data) -> tuple[torch.nn.Sequential, float]:
    """The dense network of a seed and its test accuracy; trained where it isn't kept."""
    key, path = f"{EASY} {NETWORK} dense seed {seed}", training.KEPT / f"{EASY}-{NETWORK}-dense-{seed}.pt"
    torch.manual_seed(seed)
    model = fashion.NETWORKS[NETWORK]()
    with FileLock(f"{path}.lock"):
        known = store.latest(store.read(RESULTS)).get(key)
        if known is not None and path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model, float(known["accuracy"])
        fashion.train(model, data, DENSE, seed, progress=_quiet)
        found = fashion.accuracy(model, data.test_x, data.test_y)
        torch.save(model.state_dict(), path)
        _append({"key": key, "accuracy": found})
    return model, found


def measure(case: Case, data: fashion.Data) -> store.Row:
    """Prune and retrain; as bench.training, but for longer over fewer images."""
    start = time.perf_counter()
    model, before = dense(case.seed, data)
    teacher, _ = dense(case.seed, data)
    teacher.to(memory_format=fashion.LAST).eval()
    recipe = training.recipe(training.Case(NETWORK, case.scheme, case.sparsity, training.METHOD, case.seed))
    recipe["epochs"] = {"sparsify": SPARSIFY, "recover": RECOVER}
    pruner = Pruner(model, recipe, data.test_x[:2], len(data.x) // fashion.BATCH)
    plan = fashion.Plan(SPARSIFY + RECOVER, DENSE.rate)
    fashion.train(model, data, plan, case.seed, pruner, teacher, _quiet)
    report = pruner.finalize()
    after = fashion.accuracy(model, data.test_x, data.test_y)
    return {
        "key": case.key, "scheme": case.scheme, "sparsity": case.sparsity, "seed": case.seed, "accuracy": after,
        "dense": before, "drop": 100 * (before - after), "zeros": report.sparsity,
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }  # fmt: skip


@dataclass(frozen=True)
class Line:
    """By how many points pattern loses less than punched, seed by seed."""

    data: str
    sparsity: float
    gains: tuple[float, ...]

    @property
    def gain(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.gains))

    @property
    def verdict(self) -> str:
        """Which one to take: where seeds differ about it, neither."""
        if len(self.gains) < len(SEEDS):
            return "seeds missing"
        if min(self.gains) > 0:
            return "pattern"
        return "punched" if max(self.gains) < 0 else "tie"


def table(easy: Sequence[store.Row], hard: Sequence[store.Row]) -> list[Line]:
    """What is measured. easy: rows of this file; hard: of bench.training and bench.mapped."""
    known = store.latest([*easy, *hard])
    lines = []
    for data in (EASY, HARD):
        for sparsity in SPARSITIES:
            gains = []
            for seed in SEEDS:
                pattern, punched = (known.get(_key(data, scheme, sparsity, seed)) for scheme in SCHEMES)
                if pattern is not None and punched is not None:
                    gains.append(punched["drop"] - pattern["drop"])
            if gains:
                lines.append(Line(data, sparsity, tuple(gains)))
    return lines


def _key(data: str, scheme: str, sparsity: float, seed: int) -> str:
    if data == EASY:
        return Case(scheme, sparsity, seed).key
    return training.Case(NETWORK, scheme, sparsity, training.METHOD, seed).key


def _append(row: store.Row) -> None:
    with FileLock(f"{RESULTS}.lock"):
        store.append(RESULTS, {**store.stamp(), **row})


def _quiet(line: Any) -> None:
    """An epoch is a second."""


def main() -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--share", default="1/1", help="i/n: every n-th row, from the i-th")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training.KEPT.mkdir(parents=True, exist_ok=True)
    data = digits()
    index, n_shares = map(int, options.share.split("/"))
    chosen = [case for case in cases() if any(text in case.key for text in options.only)]
    for case in chosen[index - 1 :: n_shares]:
        if case.key in store.latest(store.read(RESULTS)):
            continue
        row = measure(case, data)
        _append(row)
        print(f"{case.key}: drop {row['drop']:.2f}, {row['minutes']} minutes", flush=True)
    for line in table(store.read(RESULTS), list(mapped.known().values())):
        print(
            f"{line.data:8} {line.sparsity:.0%}: pattern better by {line.gain:5.2f} points ({len(line.gains)} seeds): "
            f"{line.verdict}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
