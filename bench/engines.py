"""All engines beside each other: ResNet-50, dense and with zeros, one thread and two.

    python -m bench.engines [--only TEXT ...] [--quick] [--again] [--list]

Every engine of `prunus.benchmark.engines.ENGINES` that is installed takes its turns in one run per row; the others are
named with the reason. Each row runs in a process of its own and is appended to bench/results/engines.jsonl. Exit
status: 1 where a row failed.
"""

import sys
from collections.abc import Iterator

from bench import store
from bench.child import print_row, run_child
from bench.measure import Case, race
from bench.tasks import Task, parse, run
from prunus.benchmark.engines import ENGINES

RESULTS = store.RESULTS / "engines.jsonl"
PEERS = tuple(engine for engine in ENGINES if engine != "prunus")
ZEROS = ((None, 0.0), ("block-column:8x64", 0.9))
THREADS = (1, 2)


def cases() -> dict[str, Case]:
    """The rows by key."""
    found = {}
    for scheme, sparsity in ZEROS:
        for threads in THREADS:
            zeros = f"{scheme} {sparsity:.0%}" if scheme else "dense"
            found[f"resnet50 {zeros}, {threads} threads"] = Case("resnet50", scheme, sparsity, threads, peers=PEERS)
    return found


def tasks() -> Iterator[Task]:
    for key, case in cases().items():
        about = {"network": case.network, "scheme": case.scheme, "sparsity": case.sparsity, "threads": case.threads}
        yield Task(key, about, lambda time_s, key=key: run_child("bench.engines", key, "--time", str(time_s)))


def main() -> int:
    arguments = parse(__doc__, 4.0)
    if arguments.child is not None:
        print_row(lambda: race(cases()[arguments.child], arguments.time))
        return 0
    return run(tasks(), RESULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
