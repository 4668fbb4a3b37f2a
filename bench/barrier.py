"""What one job costs beyond its tasks: hand-out and barrier of two threads that spin, and waking one that sleeps.

    python -m bench.barrier    # some seconds; adds a line to bench/results/barrier.jsonl

A job of two equal tasks on two threads is timed against one such task on one thread, in turns; what it takes more is
the cost. Tasks fill memory that stays in the first cache. Each thread is bound to a core of its own: on a busy machine
the system would put both on one.
"""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import store
from prunus.kernels.isa import isa_of
from prunus.kernels.library import kernel_library
from prunus.runtime.cpu import describe
from prunus.runtime.native import Pool, allocate, open_library
from prunus.runtime.records import ARENA, address, record

RESULTS = store.RESULTS / "barrier.jsonl"
FILLED, PLACE = 4000, 4096  # elements that a task fills, over and over; from one task's to the next one's
JOBS, TIMES = 100, 50  # jobs per call, and times that a task fills its elements: about 4 us, more than a barrier
LONG = 200  # a task that waits for a thread to wake is longer by this
SLEEP_S = 0.005  # until a worker surely sleeps


def cores() -> tuple[int, int]:
    """The caller's and the worker's: the first two that this process may use; one twice where there is one only."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    return usable[0], usable[1 % len(usable)]


@contextmanager
def bound_to(cores: set[int]) -> Iterator[None]:
    """This thread, and those that it makes meanwhile, on these cores only, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Timer:
    """Jobs of one task on one thread, or of two on two: the second on another core than the caller's."""

    def __init__(self, tasks: int, jobs: int, times: int) -> None:
        cpu = describe()
        assert cpu.best_target, "no target for this CPU"
        self.library = open_library(kernel_library(isa_of(cpu.best_target)))
        self.caller, other = cores()
        with bound_to({other}):
            self.pool = Pool(self.library, tasks)
        self.memory = allocate(PLACE * tasks)
        job = record(
            "margins", out=address(ARENA, 0), images=tasks, out_batch=PLACE, planes=times, tail=FILLED, pad=1
        )  # fmt: skip
        self.jobs, self.plan = jobs, np.array(job * jobs, np.int64)

    def __call__(self) -> float:
        """Microseconds per job."""
        spaces = (ctypes.c_void_p * 3)(*[self.memory.ctypes.data] * 3)
        first, end = self.plan.ctypes.data, self.plan.ctypes.data + self.plan.nbytes
        with bound_to({self.caller}):
            start = time.perf_counter()
            self.library.run(self.pool.handle, first, end, spaces, 3, self.memory.ctypes.data, 0, None)
            return (time.perf_counter() - start) / self.jobs * 1e6


def spinning(time_s: float) -> tuple[NDArray[np.float64], float]:
    """The cost of a job in microseconds, one per round, and the time of a task."""
    one, two = Timer(1, JOBS, TIMES), Timer(2, JOBS, TIMES)
    costs, tasks = [], []
    start = time.perf_counter()
    while len(costs) < 7 or time.perf_counter() - start < time_s:
        alone = float(np.median([one() for _ in range(10)]))
        two()  # wakes the worker
        costs.append(float(np.median([two() for _ in range(10)])) - alone)
        tasks.append(alone)
    return np.array(costs), float(np.median(tasks))


def waking(time_s: float) -> NDArray[np.float64]:
    """What a job costs whose worker sleeps, in microseconds, one per round; at most the time of its tasks."""
    one, two = Timer(1, 1, TIMES * LONG), Timer(2, 1, TIMES * LONG)
    one(), two()
    costs = []
    start = time.perf_counter()
    while len(costs) < 7 or time.perf_counter() - start < time_s:
        alone = one()
        time.sleep(SLEEP_S)
        costs.append(two() - alone)
    return np.array(costs)


def measure(time_s: float) -> dict[str, Any]:
    """A row: value is the cost of a job on two spinning threads, in microseconds."""
    costs, task = spinning(time_s)
    wake = waking(time_s)
    lower, value, upper = np.percentile(costs, [25, 50, 75]).round(3).tolist()
    return {
        "value": value, "quartiles": [lower, upper], "task_us": round(task, 3),
        "wake_us": round(float(np.median(wake)), 1), "wake_quartiles": np.percentile(wake, [25, 75]).round(1).tolist(),
    }  # fmt: skip


def main() -> None:
    row = measure(2.0)
    store.append(RESULTS, store.stamp() | {"key": "barrier, 2 threads", "threads": 2} | row)
    print("barrier of 2 spinning threads: {value:.2f} us ({quartiles[0]:.2f} to {quartiles[1]:.2f})".format(**row))
    print("waking a thread: {wake_us:.0f} us ({wake_quartiles[0]:.0f} to {wake_quartiles[1]:.0f})".format(**row))


if __name__ == "__main__":
    main()
