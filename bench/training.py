"""What pruning costs in accuracy: every scheme and method on Fashion-MNIST, two networks, several seeds.

    python -m bench.training [--only TEXT ...] [--share 1/2] [--list]     # appends to bench/results/training.jsonl

A row that was measured is skipped, so that hours can be spread over runs; delete its line to measure it again. Dense
networks are trained first, once per network and seed, and kept in out/training beside the pruned ones (ONNX files,
which `python -m bench.frontier` times). Drops are in points of test accuracy against the dense network of the same
seed. With `--share i/n` n runs divide the rows among themselves. Exit status: 0 all pass, 1 a row of the table is
short.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from bench import fashion, store
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "training.jsonl"
KEPT = store.ROOT / "out" / "training"
DENSE = fashion.Plan(16, 0.1)
SPARSIFY, RECOVER = 4, 12
SEEDS = (0, 1, 2)
# scheme, sparsity of the pruned layers -> drop in points, at most, as a mean over seeds
BOUNDS = {
    ("unstructured", 0.9): 0.3, ("bcr:8x64", 0.8): 0.3, ("bcr:8x64", 0.9): 0.7, ("bcr:8x64", 0.95): 1.5,
    ("punched:8x4", 0.8): 0.5, ("pattern:4", 0.8): 0.5, ("filter", 0.5): 0.5,
}  # fmt: skip
METHOD = "gradual"  # of the rows of the table


@dataclass(frozen=True)
class Case:
    """A row: what is pruned, how, and with which seed. sparsity: of filter, the share of MACs that goes."""

    network: str
    scheme: str
    sparsity: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        """The row's name."""
        return f"{self.network} {self.scheme} {self.sparsity:g} {self.method} seed {self.seed}"


def cases() -> list[Case]:
    """The table, and for the frontier further methods and rates with one seed."""
    table = [
        Case(network, scheme, sparsity, METHOD, seed)
        for seed in SEEDS
        for network in fashion.NETWORKS
        for scheme, sparsity in BOUNDS
    ]
    frontier = [
        Case("vgg", scheme, sparsity, method, 0)
        for sparsity in (0.9, 0.8, 0.95)
        for method in ("gradual", "one-shot", "admm", "reweighted")
        for scheme in ("bcr:8x64", "punched:8x4", "block-column:8x64", "unstructured")
    ]
    return list(dict.fromkeys(table + frontier))


def dense(network: str, seed: int, data: fashion.Data) -> tuple[nn.Sequential, float]:
    """The dense network of a seed and its test accuracy; trained where it isn't kept."""
    key, path = f"{network} dense seed {seed}", KEPT / f"{network}-dense-{seed}.pt"
    torch.manual_seed(seed)
    model = fashion.NETWORKS[network]()
    with FileLock(f"{path}.lock"):
        known = store.latest(store.read(RESULTS)).get(key)
        if known is None or not path.exists():
            start = time.perf_counter()
            fashion.train(model, data, DENSE, seed)
            found = fashion.accuracy(model, data.test_x, data.test_y)
            torch.save(model.state_dict(), path)
            fields = {"epochs": DENSE.epochs, "macs": fashion.macs(model), "minutes": _minutes(start)}
            _append({"key": key, "network": network, "accuracy": found, **fields})
            return model, found
    model.load_state_dict(torch.load(path, weights_only=True))
    return model, float(known["accuracy"])


def recipe(case: Case) -> dict[str, Any]:
    """All layers but the first and the last, in one way."""
    first, last = {"resnet20": (r"re:^0\.", r"re:^2\."), "vgg": ("0", "26")}[case.network]
    rule: dict[str, Any] = {"match": "re:.*", "scheme": case.scheme}
    if case.scheme != "filter":
        rule["sparsity"] = case.sparsity
    made = with_rules([{"match": first, "skip": True}, {"match": last, "skip": True}, rule], case.method)
    if case.scheme == "filter":
        made["remove"] = {"macs": 1 - case.sparsity}
    return made


def with_rules(rules: list[dict[str, Any]], method: str = METHOD) -> dict[str, Any]:
    """A recipe as those of the table, with other rules."""
    return {"method": method, "epochs": {"sparsify": SPARSIFY, "recover": RECOVER}, "layers": rules}


def file_of(key: str) -> Path:
    """Where the network of a row is kept."""
    return KEPT / f"{key.replace(' ', '-').replace(':', '_')}.onnx"


def measure(case: Case, data: fashion.Data) -> store.Row:
    """Prune, retrain, export; accuracy of the exported file's network."""
    return {"key": case.key, **asdict(case), **retrained(case.key, case.network, case.seed, recipe(case), data)}


def retrained(key: str, network: str, seed: int, made: dict[str, Any], data: fashion.Data) -> store.Row:
    """The dense network of a seed pruned and retrained by a recipe, its file kept; what is measured of it."""
    start = time.perf_counter()
    model, before = dense(network, seed, data)
    teacher, _ = dense(network, seed, data)
    teacher.to(memory_format=fashion.LAST).eval()
    n_batches = len(data.x) // fashion.BATCH
    pruner = Pruner(model, made, data.test_x[:2], n_batches)
    plan = fashion.Plan(SPARSIFY + RECOVER, DENSE.rate)
    fashion.train(model, data, plan, seed, pruner, teacher)
    report = pruner.finalize()
    smaller = pruner.shrink() if "remove" in made else model
    after = fashion.accuracy(smaller, data.test_x, data.test_y)
    pruner.export(file_of(key))
    return {
        "accuracy": after, "dense": before, "drop": 100 * (before - after),
        "choosing": fashion.accuracy(smaller, data.choose_x, data.choose_y), "zeros": report.sparsity,
        "macs": fashion.macs(smaller), "epochs": plan.epochs, "minutes": _minutes(start),
    }  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of the table: mean drop in points over seeds, and largest minus smallest."""

    network: str
    what: str
    drop: float
    spread: float
    seeds: int
    bound: float

    @property
    def verdict(self) -> str:
        """Is it within its bound?"""
        if self.drop > self.bound:
            return "short"
        return "pass" if self.seeds == len(SEEDS) else "seeds missing"


def table(rows: list[store.Row]) -> list[Line]:
    """What is measured of BOUNDS."""
    found = store.latest(rows)
    lines = []
    for network in fashion.NETWORKS:
        for (scheme, sparsity), bound in BOUNDS.items():
            keys = [Case(network, scheme, sparsity, METHOD, seed).key for seed in SEEDS]
            drops = [found[key]["drop"] for key in keys if key in found]
            what = f"{scheme} {sparsity:.0%}" + (" of multiply-adds" if scheme == "filter" else "")
            if drops:
                lines.append(Line(network, what, float(np.mean(drops)), float(np.ptp(drops)), len(drops), bound))
    return lines


def _append(row: store.Row) -> None:
    with FileLock(f"{RESULTS}.lock"):
        store.append(RESULTS, {**store.stamp(), **row})


def _minutes(start: float) -> float:
    return round((time.perf_counter() - start) / 60, 1)


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--share", default="1/1", help="i/n: every n-th row, from the i-th")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    options = parser.parse_args()
    chosen = [case for case in cases() if any(text in case.key for text in options.only)]
    index, n_shares = map(int, options.share.split("/"))
    if options.list:
        print("\n".join(case.key for case in chosen))
        return 0
    images = fashion.folder()
    if images is None:
        print("no Fashion-MNIST: apt install dataset-fashion-mnist, or set PRUNUS_DATA")
        return 1
    torch.set_num_threads(options.threads)
    KEPT.mkdir(parents=True, exist_ok=True)
    data = fashion.load(images)
    for case in chosen[index - 1 :: n_shares]:
        if case.key in store.latest(store.read(RESULTS)):
            print(f"{case.key}: measured")
            continue
        print(case.key, flush=True)
        row = measure(case, data)
        _append(row)
        print(json.dumps({key: row[key] for key in ("accuracy", "dense", "drop", "zeros", "minutes")}), flush=True)
    lines = table(store.read(RESULTS))
    for line in lines:
        drop = f"drop {line.drop:5.2f} (spread {line.spread:.2f}, {line.seeds} seeds), at most {line.bound}"
        print(f"{line.network:10} {line.what:30} {drop}: {line.verdict}")
    return int(any(line.verdict == "short" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
