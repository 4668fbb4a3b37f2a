"""Mapped networks against networks of one scheme, at equal accuracy: Fashion-MNIST, two networks, three seeds.

    python -m bench.mapped plan [--only TEXT ...]                  # which scheme where: rules, exact, search
    python -m bench.mapped train [--only TEXT ...] [--share 1/2]   # hours; goes on where it was stopped
    python -m bench.mapped time [--time 10]                        # minutes, on a quiet machine
    python -m bench.mapped table

`python -m bench.report` draws docs/mapped.svg.

Rows are appended to bench/results/mapped.jsonl; one that is there is skipped (delete its line to have it anew). All
networks are retrained alike, by the recipe of bench.training, whose rows and files in out/training count as well where
they are of the same scheme and sparsity. Plans are made once per network, with the dense network of seed 0, and
retrained with each seed. `time` measures all networks of a seed in one interleaved run on one thread, `table` compares.
Exit status of `table`: 1 where a goal is short.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

import prunus
from bench import equal, fashion, frontier, plans, store, training
from bench.equal import Point
from bench.verdict import Verdict
from prunus.benchmark.timing import speed_ratio, time_interleaved
from prunus.errors import BudgetError

RESULTS = store.RESULTS / "mapped.jsonl"
PLOT = store.ROOT / "docs" / "mapped.svg"
SEEDS = training.SEEDS
SINGLE: dict[str, tuple[float, ...]] = {
    "bcr:8x64": (0.8, 0.9, 0.95), "punched:8x4": (0.8, 0.9, 0.95), "punched:16x1": (0.9,),
    "pattern:4": (0.6, 0.8, 0.9, 0.95), "block-column:8x64": (0.8, 0.9, 0.95), "unstructured": (0.8, 0.9, 0.95),
    "filter": (0.5, 0.7),
}  # fmt: skip
PATTERN = "pattern:4"  # PatDNN's way
WAYS = ("rules", "exact", "search")
SPEEDUPS = (2.0, 3.0, 4.0)
DROP = 1.0  # points: networks that lost more don't count in the verdicts
OVER_BEST, OVER_PATTERN, GOAL, RULES, PROMISE = 1.25, 1.73, 2.48, 1.10, 0.10


@dataclass(frozen=True)
class Case:
    """A network. how: a scheme, or a way to map. amount: sparsity (of filter, the share of MACs that goes), or how many
    times as fast as dense."""

    network: str
    how: str
    amount: float
    seed: int

    @property
    def name(self) -> str:
        """Of the case in all seeds."""
        return f"{self.network} {self.how} {self.amount:g}"

    @property
    def key(self) -> str:
        """The row's name; of one scheme, that of bench.training."""
        return f"{self.name} seed {self.seed}" if self.how in WAYS else self.single.key

    @property
    def single(self) -> training.Case:
        """As bench.training has it."""
        return training.Case(self.network, self.how, self.amount, training.METHOD, self.seed)


def cases() -> Iterator[Case]:
    """Seed by seed, so that there is a whole table early."""
    for seed in SEEDS:
        for network in fashion.NETWORKS:
            yield from (Case(network, way, speedup, seed) for speedup in SPEEDUPS[::-1] for way in WAYS)
            yield from (Case(network, scheme, amount, seed) for scheme, some in SINGLE.items() for amount in some)


def known() -> dict[str, store.Row]:
    """All rows, those of bench.training with one scheme too."""
    return store.latest([*store.read(training.RESULTS), *store.read(RESULTS)])


def plan(only: Sequence[str], data: fashion.Data) -> None:
    """Make the plans that are missing."""
    for network in fashion.NETWORKS:
        for way in WAYS:
            for speedup in SPEEDUPS:
                key = f"plan {network} {way} {speedup:g}"
                if key in known() or not any(text in key for text in only):
                    continue
                print(key, flush=True)
                start = time.perf_counter()
                try:
                    row = plans.make(network, way, speedup, data)
                except BudgetError as error:
                    row = {"failure": str(error)}
                row |= {"network": network, "way": way, "speedup": speedup, "minutes": _minutes(start)}
                _append({"key": key, **row})
                print({name: row[name] for name in ("ms", "accuracy", "minutes", "failure") if name in row}, flush=True)


def train(case: Case, data: fashion.Data) -> None:
    """Prune and retrain a network that is missing."""
    found = known()
    if case.key in found and training.file_of(case.key).exists():
        return
    if case.how not in WAYS:
        print(case.key, flush=True)
        _append(training.measure(case.single, data))
        return
    made = found.get(f"plan {case.name}")
    if made is None or "failure" in made:
        print(f"{case.key}: {'no plan yet: python -m bench.mapped plan' if made is None else made['failure']}")
        return
    print(case.key, flush=True)
    rules = made["layers"]
    row = training.retrained(case.key, case.network, case.seed, training.with_rules(rules), data)
    about = {"network": case.network, "way": case.how, "speedup": case.amount, "seed": case.seed}
    _append({"key": case.key, **about, **row, "layers": rules})


def measure(network: str, seed: int, time_s: float) -> None:
    """Time all networks of a seed that are there, beside the dense one."""
    mine = [case for case in cases() if (case.network, case.seed) == (network, seed)]
    files = {case.key: training.file_of(case.key) for case in mine if case.key in known()}
    sessions = {key: prunus.compile(file, threads=1) for key, file in files.items() if file.exists()}
    if not sessions:
        return
    sessions["dense"] = prunus.compile(plans.dense_file(network, seed), threads=1)
    x = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
    calls: dict[str, Any] = {key: lambda s=session: s.run(None, {"x": x}) for key, session in sessions.items()}
    times = time_interleaved(calls, time_s, 0.2)
    for key, taken in times.items():
        ratio = speed_ratio(taken, times["dense"])
        name = key if key != "dense" else f"{network} dense seed {seed}"
        _append({
            "key": f"time {name}", "ms": taken.median_s * 1e3,
            "times_dense": [round(value, 3) for value in (ratio.lower, ratio.median, ratio.upper)],
        })  # fmt: skip
        print(f"{name:44} {taken.median_s * 1e3:.4f} ms, {ratio.median:.2f} times as fast as dense", flush=True)


@dataclass(frozen=True)
class Line:
    """A mapped network, means over seeds: how many times as fast as others at its accuracy; None where they don't get
    there. best: on the frontier of all networks of one scheme, the scheme of the next one that is as accurate. drop in
    points against dense."""

    network: str
    way: str
    speedup: float
    ms: float
    drop: float
    seeds: int
    over_best: float | None
    best: str
    over_pattern: float | None
    over_dense: float


def points(rows: dict[str, store.Row], network: str) -> dict[str, list[tuple[Point, int]]]:
    """Networks by scheme or way, with the number of seeds; the dense one is of "dense". Accuracies and times of a seed
    are taken beside those of its dense network, so that rows which have fewer seeds can be compared."""
    names = {seed: f"{network} dense seed {seed}" for seed in SEEDS}
    dense = {seed: (rows[f"time {key}"]["ms"], rows[key]["accuracy"]) for seed, key in names.items()
             if {key, f"time {key}"} <= set(rows)}  # fmt: skip
    if not dense:
        return {}
    ms, accuracy = np.mean(list(dense.values()), axis=0).tolist()
    found: dict[str, list[tuple[Point, int]]] = {"dense": [(Point("dense 0", ms, accuracy), len(dense))]}
    for how, amount in dict.fromkeys((case.how, case.amount) for case in cases() if case.network == network):
        keys = {seed: Case(network, how, amount, seed).key for seed in dense}
        both = [
            (rows[f"time {key}"]["ms"] / dense[seed][0], rows[key]["accuracy"] - dense[seed][1])
            for seed, key in keys.items()
            if {key, f"time {key}"} <= set(rows)
        ]
        if both:
            share, gain = np.mean(both, axis=0).tolist()
            found.setdefault(how, []).append((Point(f"{how} {amount:g}", ms * share, accuracy + gain), len(both)))
    return found


def lines(rows: dict[str, store.Row]) -> list[Line]:
    """Every mapped network that was trained and timed."""
    made = []
    for network in fashion.NETWORKS:
        found = points(rows, network)
        if "dense" not in found:
            continue
        dense = found["dense"][0][0]
        single = {how: [point for point, _ in found[how]] for how in SINGLE if how in found}
        every = equal.frontier([dense, *(point for some in single.values() for point in some)])
        for way in WAYS:
            for point, n_seeds in found.get(way, []):
                best = equal.ms_at(every, point.accuracy)
                pattern = equal.ms_at([dense, *single.get(PATTERN, [])], point.accuracy) if PATTERN in single else None
                rival = next((each.name.split()[0] for each in every if each.accuracy >= point.accuracy), "")
                made.append(
                    Line(
                        network, way, float(point.name.split()[1]), point.ms, 100 * (dense.accuracy - point.accuracy),
                        n_seeds, best / point.ms if best else None, rival or every[-1].name.split()[0],
                        pattern / point.ms if pattern else None, dense.ms / point.ms,
                    )
                )  # fmt: skip
    return made


def verdicts(rows: dict[str, store.Row]) -> list[Verdict]:
    """Of each network, the most that one of its mapped versions within DROP points of dense reaches."""
    made = []
    for network in fashion.NETWORKS:
        mine = [line for line in lines(rows) if line.network == network and line.drop <= DROP]
        best = max((line.over_best for line in mine if line.over_best), default=None)
        pattern = max((line.over_pattern for line in mine if line.over_pattern), default=None)
        made += [
            Verdict(f"{network}: mapped over the best single scheme", best, OVER_BEST),
            Verdict(f"{network}: mapped over pattern-only", pattern, OVER_PATTERN),
            Verdict(f"{network}: mapped over pattern-only, the paper's", pattern, GOAL),
            Verdict(f"{network}: rules' time over search's", _rules_over_search(rows, network), RULES, True),
            Verdict(f"{network}: measured beside promised, worst plan", _beside_promised(rows, network), PROMISE, True),
        ]
    return made


def _rules_over_search(rows: dict[str, store.Row], network: str) -> float | None:
    """Where the rules' networks are as accurate as those that search found, up to equal.TIE; the median."""
    found = points(rows, network)
    dense, ruled = found.get("dense"), [point for point, _ in found.get("rules", [])]
    if dense is None or not ruled:
        return None
    line = [dense[0][0], *ruled]
    ratios = []
    for point, _ in found.get("search", []):
        ms = equal.ms_at(line, point.accuracy - equal.TIE)
        ratios += [] if ms is None else [ms / point.ms]
    return float(np.median(ratios)) if ratios else None


def _beside_promised(rows: dict[str, store.Row], network: str) -> float | None:
    """By what share the time of a retrained network differs from that of its plan, at most; means over seeds."""
    found = []
    for how, amount in ((way, speedup) for way in WAYS for speedup in SPEEDUPS):
        plan = rows.get(f"plan {network} {how} {amount:g}", {})
        times = [rows.get(f"time {Case(network, how, amount, seed).key}", {}).get("ms") for seed in SEEDS]
        measured = [ms for ms in times if ms is not None]
        if "ms" in plan and measured:
            found.append(abs(float(np.mean(measured)) / plan["ms"] - 1))
    return max(found, default=None)


def table() -> int:
    """Print lines and verdicts; 1 where one is short."""
    rows = known()
    for line in lines(rows):
        best = "-" if line.over_best is None else f"{line.over_best:.2f}"
        pattern = "-" if line.over_pattern is None else f"{line.over_pattern:.2f}"
        print(
            f"{line.network:9} {line.way:7} {line.speedup:g}x: {line.ms:.4f} ms, {line.over_dense:.2f} over dense, "
            f"drop {line.drop:5.2f} ({line.seeds} seeds), {best} over {line.best or 'any'}, {pattern} over {PATTERN}"
        )
    found = verdicts(rows)
    print(*found, sep="\n")
    return int(any(each.verdict == "short" and each.bound != GOAL for each in found))


def draw(rows: dict[str, store.Row], plot: Path = PLOT) -> None:
    """A panel per network: a line per scheme, marks for mapped networks."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt

    networks = [network for network in fashion.NETWORKS if any(line.network == network for line in lines(rows))]
    if not networks:
        return
    figure, axes = plt.subplots(
        1, len(networks), figsize=(5.2 * len(networks), 4.4), layout="constrained", squeeze=False
    )
    for axis, network in zip(axes[0], networks, strict=True):
        for how, some in points(rows, network).items():
            chain = sorted((point.ms, 100 * point.accuracy) for point, _ in some)
            way = how in WAYS
            style = {"linestyle": "", "markersize": 9} if way else {"linestyle": "-", "linewidth": 1, "markersize": 5}
            colour = "#000000" if way or how == "dense" else frontier.COLOURS[how]
            sign = {"dense": "*", "rules": "P", "exact": "X", "search": "^"}.get(how, "o")
            axis.plot(*zip(*chain, strict=True), marker=sign, color=colour, label=f"by {how}" if way else how, **style)
        axis.set_title(network, fontsize=10)
        frontier.of_time(axis)
        axis.legend(fontsize=8, loc="lower right", frameon=False)
    axes[0][0].set_ylabel(frontier.ACCURACY)
    figure.savefig(plot, metadata={"Date": None} if plot.suffix == ".svg" else None)
    plt.close(figure)


def _append(row: store.Row) -> None:
    with FileLock(f"{RESULTS}.lock"):
        store.append(RESULTS, {**store.stamp(), **row})


def _minutes(start: float) -> float:
    return round((time.perf_counter() - start) / 60, 1)


def main() -> int:
    """Do a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("plan", "train", "time", "table", "list"))
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--share", default="1/1", help="i/n: every n-th network, from the i-th")
    parser.add_argument("--threads", type=int, default=1, help="of training")
    parser.add_argument("--time", type=float, default=10.0, help="seconds of timed calls per network")
    options = parser.parse_args()
    chosen = [case for case in cases() if any(text in case.key for text in options.only)]
    if options.stage == "table":
        return table()
    if options.stage == "list":
        done = known()
        print("\n".join(f"{case.key}{': there' if case.key in done else ''}" for case in chosen))
        return 0
    if options.stage == "time":
        for network, seed in dict.fromkeys((case.network, case.seed) for case in chosen):
            measure(network, seed, options.time)
        return 0
    images = fashion.folder()
    if images is None:
        print("no Fashion-MNIST: apt install dataset-fashion-mnist, or set PRUNUS_DATA")
        return 1
    torch.set_num_threads(options.threads)
    training.KEPT.mkdir(parents=True, exist_ok=True)
    data = fashion.load(images)
    if options.stage == "plan":
        plan(options.only, data)
        return 0
    index, n_shares = map(int, options.share.split("/"))
    for case in chosen[index - 1 :: n_shares]:
        train(case, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
