"""The pool of threads by itself, in a program of its own; with --sanitize, under the sanitizers."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus.kernels import toolchain
from prunus.kernels.library import kernel_library
from prunus.runtime.native import Pool, open_library
from tests.kernels.runners import build, sanitizers, system_compiler, this_isa

JOBS = 4000


def programs(sanitize: bool) -> Iterator[Path]:
    """pools.c, as it is or under each sanitizer."""
    if not sanitize:
        yield build("pools.c", this_isa(), (), toolchain.find())
        return
    if (compiler := system_compiler()) is None:
        pytest.skip("no clang or gcc on this machine: the sanitizers come with one")
    for which in ("address,undefined", "thread"):
        yield build("pools.c", this_isa(), sanitizers(which), compiler)


@pytest.mark.parametrize(("pools", "threads"), [(1, 2), (3, 4), (1, 16)])
def test_each_task_is_done_once(pools: int, threads: int, request: pytest.FixtureRequest) -> None:
    """In jobs of a few microseconds, with more threads than cores, in several pools at once."""
    for program in programs(request.config.getoption("--sanitize")):
        command = [str(program), str(pools), str(threads), str(JOBS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "unexpected memory mapping" in done.stderr:
            pytest.skip("ThreadSanitizer of this compiler needs vm.mmap_rnd_bits of at most 28")
        assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_gather(threads: int) -> None:
    """Whether they sleep or not, and any number of times."""
    pool = Pool(open_library(kernel_library(this_isa())), threads)
    for _ in range(3):
        pool.gather()
    time.sleep(0.01)  # workers sleep
    pool.gather()
    assert pool.process == os.getpid()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="CPUs of threads are Linux's")
@pytest.mark.parametrize("alone", [True, False])
def test_workers_are_kept_off_the_callers_core_until_they_sleep(alone: bool) -> None:
    """Unless other pools work at the same time; asleep, they may go anywhere."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one CPU")
    before = set(os.listdir("/proc/self/task"))
    pool = Pool(open_library(kernel_library(this_isa())), 2, alone)
    (worker,) = (int(task) for task in set(os.listdir("/proc/self/task")) - before)
    seen = set()
    for _ in range(200):
        time.sleep(0.005)  # it sleeps
        pool.gather()
        seen.add(len(os.sched_getaffinity(worker)))
        if min(seen) < len(allowed):
            break
    assert (min(seen) < len(allowed)) == alone
    time.sleep(0.1)
    assert os.sched_getaffinity(worker) == allowed
