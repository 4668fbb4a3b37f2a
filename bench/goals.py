"""The goals, measured: a row per promise, with pass or short.

    python -m bench.goals [--only TEXT ...] [--threads 1 2] [--quick] [--again] [--list]

Each row runs in a process of its own and is appended to bench/results/goals.jsonl when done; one that was measured at
this commit is skipped unless --again. --quick proves that rows run; what it writes is never shown as a result.
Exit status: 0 all pass, 1 a row is short or failed.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from bench import store
from bench.child import print_row, run_child
from bench.measure import INT8_PEERS, KINDS, Case

RESULTS = store.RESULTS / "goals.jsonl"
FP32 = ("onnxruntime", "openvino", "ncnn", "mnn", "litert")
COLUMNS = "block-column:8x64"


@dataclass(frozen=True)
class Limit:
    """What a row's number must reach. against: "best" (the fastest peer), an engine, or "value" (the row's own number).

    goal: where it should get to; above `least`, or below `most`, it passes before that.
    """

    against: str
    least: float | None = None
    most: float | None = None
    goal: float | None = None


@dataclass(frozen=True)
class Goal:
    """A row: what is measured, how, and its limits. network: None where none is run. threads: the one number that it is
    about; None for any.
    """

    kind: str
    network: str | None
    scheme: str | None
    sparsity: float
    limits: tuple[Limit, ...]
    precision: str = "fp32"
    peers: tuple[str, ...] = FP32
    threads: int | None = None

    @property
    def name(self) -> str:
        if self.network is None:
            return self.kind
        zeros = f"{self.scheme} {self.sparsity:.0%}" if self.scheme else "dense"
        precision = "" if self.precision == "fp32" else f" {self.precision}"
        return f"{self.kind} {self.network} {zeros}{precision}"

    def runs_on(self, threads: Iterable[int]) -> list[int]:
        """Of numbers of threads, those that it is about."""
        return [n for n in threads if self.threads in (None, n)]

    def case(self, threads: int) -> Case:
        peers = self.peers if self.kind == "race" else ()
        return Case(self.network, self.scheme, self.sparsity, threads, self.precision, peers)


@dataclass(frozen=True)
class Mark:
    """A limit judged: its text, the number found (None: not measured), and "pass", "short" or why neither."""

    text: str
    found: float | None
    verdict: str


def best(least: float, goal: float | None = None) -> Limit:
    return Limit("best", least, goal=goal)


GOALS = (
    Goal("race", "resnet50", COLUMNS, 0.9, (best(7.0),)),
    Goal("race", "resnet50", "bcr:8x64", 0.9, (best(4.5, 6.0),)),
    Goal("race", "resnet50", "bcr:16x128", 0.9, (best(5.5, 7.0),)),
    Goal("race", "resnet50", "unstructured", 0.9, (best(3.0),)),
    Goal("race", "resnet50", "punched:8x2", 0.9, (Limit("openvino-bf16", 6.0),), "bf16", ("openvino-bf16",)),
    Goal("race", "resnet50", "punched:8x4", 0.9, (best(5.0),), "int8", INT8_PEERS),
    Goal("race", "resnet50", None, 0.0, (best(0.97, 1.0),)),
    Goal("race", "vgg16", COLUMNS, 0.9, (best(3.5), Limit("onnxruntime", 8.0))),
    Goal("race", "vgg16", COLUMNS, 0.95, tuple(Limit(e, 14.1) for e in ("litert", "onnxruntime", "openvino"))),
    Goal("race", "vgg16-32", COLUMNS, 0.95, tuple(Limit(e, 10.0) for e in ("onnxruntime", "openvino"))),
    Goal("race", "mobilenetv2", COLUMNS, 0.8, (best(2.5),)),
    Goal("race", "efficientnet-lite0", COLUMNS, 0.8, (best(2.5),)),
    Goal("peak", "resnet50", COLUMNS, 0.9, (Limit("value", 0.8),)),
    Goal("peak", "resnet50", "punched:8x4", 0.9, (Limit("value", 0.7),), "int8"),
    Goal("csr", "resnet50", COLUMNS, 0.9, (best(5.0),)),
    Goal("compile", "resnet50", COLUMNS, 0.9, (Limit("value", most=15.0),)),
    Goal("memory", "resnet50", COLUMNS, 0.9, (Limit("value", most=1.3),)),
    Goal("scaling", "resnet50", COLUMNS, 0.9, (Limit("value", 1.8),), threads=2),
    Goal("scaling", "resnet50", None, 0.0, (Limit("value", 1.8),), threads=2),
    Goal("barrier", None, None, 0.0, (Limit("value", most=2.0),), threads=2),
)


def marks(goal: Goal, row: store.Row) -> list[Mark]:
    """Each limit of a goal, judged by a row of results. A peer that wasn't timed can't be passed."""
    return [_mark(limit, row) for limit in goal.limits]


def _mark(limit: Limit, row: store.Row) -> Mark:
    text = _text(limit)
    if "failure" in row:
        return Mark(text, None, "failed")
    if "unsupported" in row:
        return Mark(text, None, "not supported")
    if limit.against == "value":
        found = row["value"]
    else:
        ratios = {engine: ratio[1] for engine, ratio in row["ratios"].items()}
        found = min(ratios.values(), default=None) if limit.against == "best" else ratios.get(limit.against)
        if found is None:
            return Mark(text, None, "no peer")
    good = found >= limit.least if limit.least is not None else found <= (limit.most or 0.0)
    return Mark(text, found, "pass" if good else "short")


def _text(limit: Limit) -> str:
    bound = f"at least {limit.least:g}" if limit.least is not None else f"at most {limit.most:g}"
    goal = f" (goal {limit.goal:g})" if limit.goal is not None else ""
    return f"{bound}{goal}" + ("" if limit.against == "value" else f" x {limit.against}")


def measure_in_process(goal: Goal, threads: int, time_s: float) -> store.Row:
    """The row of a goal, measured in a fresh process: a crash of an engine becomes a row with "failure"."""
    index = str(GOALS.index(goal))
    return run_child("bench.goals", index, "--threads", str(threads), "--time", str(time_s))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--time", type=float, default=4.0, help="seconds of timed calls per engine")
    parser.add_argument("--quick", action="store_true", help="as few calls as possible")
    parser.add_argument("--again", action="store_true", help="also rows measured at this commit")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    time_s = 0.0 if arguments.quick else arguments.time
    if arguments.child is not None:
        goal = GOALS[arguments.child]
        print_row(lambda: KINDS[goal.kind](goal.case(arguments.threads[0]), arguments.time))
        return 0
    chosen = [goal for goal in GOALS if any(text in goal.name for text in arguments.only)]
    if arguments.list:
        print("\n".join(goal.name for goal in chosen))
        return 0
    good, stamp = True, store.stamp()
    for goal, threads in [(row, n) for row in chosen for n in row.runs_on(arguments.threads)]:
        key = f"{goal.name}, {threads} threads"
        if not arguments.again and store.is_measured(store.read(RESULTS), key, stamp["commit"]):
            print(f"{key}: measured at {stamp['commit']}", flush=True)
            continue
        row = {"key": key, "threads": threads, "quick": arguments.quick} | measure_in_process(goal, threads, time_s)
        if not arguments.quick:
            store.append(RESULTS, stamp | row)
        print(f"{key}: " + (row.get("failure") or row.get("unsupported") or ""), flush=True)
        for mark in marks(goal, row):
            print(
                f"    {mark.verdict:14} {'-' if mark.found is None else f'{mark.found:.2f}'}  {mark.text}", flush=True
            )
            good &= mark.verdict == "pass"
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
