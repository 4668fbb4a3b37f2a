"""Measurements one after the other: each is kept when it is done, and skipped where this commit has it already."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import store


@dataclass(frozen=True)
class Task:
    """A row to be: its key, what it says beside what is measured, and the measuring.

    measure: from seconds of timed calls per engine to the rest of the row.
    """

    key: str
    about: store.Row
    measure: Callable[[float], store.Row]


def parse(document: str | None, time_s: float) -> argparse.Namespace:
    """The options that the command lines of results share."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose key holds one of these")
    parser.add_argument("--time", type=float, default=time_s, help="seconds of timed calls per engine")
    parser.add_argument("--quick", action="store_true", help="as few calls as possible; writes no results")
    parser.add_argument("--again", action="store_true", help="also rows measured at this commit")
    parser.add_argument("--list", action="store_true", help="print the keys of the rows")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(tasks: Iterable[Task], results: Path, arguments: argparse.Namespace) -> int:
    """Measure what is asked for; the exit status: 1 where a row failed."""
    status, stamp = 0, store.stamp()
    for task in tasks:
        if not any(text in task.key for text in arguments.only):
            continue
        if arguments.list:
            print(task.key)
            continue
        if not arguments.again and store.is_measured(store.read(results), task.key, stamp["commit"]):
            print(f"{task.key}: measured at {stamp['commit']}", flush=True)
            continue
        row = {"key": task.key, "quick": arguments.quick, **task.about}
        row |= task.measure(0.0 if arguments.quick else arguments.time)
        if not arguments.quick:
            store.append(results, stamp | row)
        said = ", ".join(
            f"{name} {value:.2f} {unit}" for unit in ("ms", "us") for name, value in row.get(unit, {}).items()
        )
        print(f"{task.key}: {said}{row.get('failure', '')}", flush=True)
        for reason in row.get("left_out", {}).values():
            print(f"    left out: {reason}", flush=True)
        status |= "failure" in row
    return status
