"""The native library of an artefact: loaded from its bytes, called through ctypes."""

import ctypes
import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import ArtefactError
from prunus.runtime.cpu import spread_cpus
from prunus.runtime.plan import Plan, Stage

_HUGE = 1 << 21  # bytes of a huge page


class _Here:
    """Which process this is: to ask the system takes a tenth of a microsecond, which a small network feels."""

    def __init__(self) -> None:
        self.look()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.look)

    def look(self) -> None:
        self.process = os.getpid()


here = _Here()


class Library:
    """Functions of a kernel library. Equal bytes are loaded once per process; see `open_library`."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self.pool_open = handle.prunus_pool_open
        self.pool_open.restype, self.pool_open.argtypes = ctypes.c_void_p, [ctypes.c_int]
        self.pool_close = handle.prunus_pool_close
        self.pool_close.restype, self.pool_close.argtypes = None, [ctypes.c_void_p]
        self.pool_place = handle.prunus_pool_place
        self.pool_place.restype, self.pool_place.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self.pool_gather = handle.prunus_pool_gather
        self.pool_gather.restype, self.pool_gather.argtypes = None, [ctypes.c_void_p]
        self.run = handle.prunus_run
        self.run.restype = None
        self.run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self.call = handle.prunus_call  # one argument: ctypes takes a tenth of a microsecond for each
        self.call.restype, self.call.argtypes = None, [ctypes.c_void_p]
        self.peak = handle.prunus_peak
        self.peak.restype, self.peak.argtypes = ctypes.c_double, [ctypes.c_int]
        self.bandwidth = handle.prunus_bandwidth
        self.bandwidth.restype, self.bandwidth.argtypes = (
            ctypes.c_double,
            [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int],
        )


_lock = threading.Lock()


def open_library(code: bytes) -> Library:
    """Load a shared library from its bytes.

    Raises ArtefactError: the system's loader refuses it.
    """
    with _lock:
        return _open(hashlib.sha256(code).digest(), code)


@cache
def _open(_digest: bytes, code: bytes) -> Library:
    try:
        if hasattr(os, "memfd_create"):
            # Stays open: the loader knows libraries by path, and a closed descriptor's number comes again.
            descriptor = os.memfd_create("prunus-kernels")
            with open(descriptor, "wb", closefd=False) as file:
                file.write(code)
            return Library(ctypes.CDLL(f"/proc/self/fd/{descriptor}"))
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(code)
            file.flush()
            return Library(ctypes.CDLL(file.name))
    except OSError as error:
        raise ArtefactError(f"kernel library can't be loaded: {error}") from error


def allocate(elements: int) -> NDArray[np.float32]:
    """Zeroed float32 memory on huge pages where the system has them: feature maps touch a page per channel.

    Private: memory shared between processes, Python's default, has huge pages on few systems only.
    """
    n_bytes = max(elements, 1) * 4
    huge = n_bytes // _HUGE * _HUGE if hasattr(mmap, "MADV_HUGEPAGE") else 0
    if huge:
        area = mmap.mmap(-1, n_bytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        area = mmap.mmap(-1, n_bytes + _HUGE)
    start = -np.frombuffer(area, np.uint8, 1).ctypes.data % _HUGE
    if huge:  # what is left over stays on small pages: one touched element would take a huge one
        area.madvise(mmap.MADV_HUGEPAGE, start, huge)
    return np.frombuffer(area, np.float32, max(elements, 1), start)


class Pool:
    """Threads of the library that stay; closed with the object.

    alone: no other threads of this process work at the same time, so that each may have a core of its own.
    """

    def __init__(self, library: Library, threads: int, alone: bool = True) -> None:
        self.library, self.threads, self.process = library, threads, here.process
        self.handle = library.pool_open(threads)
        if not self.handle:
            raise MemoryError("no memory for a thread pool")
        if alone and threads > 1:
            cpus = np.array(spread_cpus(), np.int32)
            library.pool_place(self.handle, cpus.ctypes.data, len(cpus))

    def gather(self) -> None:
        """Wake all threads and wait for them, so that what is timed next doesn't wait for them to wake up."""
        self.library.pool_gather(self.handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None) and self.process == here.process:
            self.library.pool_close(self.handle)


class Memory:
    """Of plans that run one at a time: activations and what threads hold for themselves."""

    def __init__(self, plans: Sequence[Plan], threads: int) -> None:
        self.arena = allocate(max(plan.arena for plan in plans))
        self.scratch = allocate(max(plan.scratch for plan in plans) * threads + 16)


class Bound:
    """A plan with its memory, ready to run on a pool. memory: that of others, where several take turns."""

    def __init__(
        self,
        library: Library,
        plan: Plan,
        constants: NDArray[np.float32],
        threads: int,
        memory: Memory | None = None,
    ) -> None:
        self.library, self.plan, self.constants = library, plan, constants
        memory = memory or Memory([plan], threads)
        self.arena, self.scratch = memory.arena, memory.scratch
        # looking up where an array lies takes numpy a microsecond each time
        self._spaces = tuple(space.ctypes.data for space in (self.arena, self.constants, plan.tables))
        self._records, self._scratch = plan.records.ctypes.data, self.scratch.ctypes.data

    def prepared(self, pool: Pool, stage: Stage, ports: list[NDArray[Any]]) -> NDArray[np.int64]:
        """The block for `Library.call` that runs a stage on these ports, which stay where they are."""
        spaces = (*self._spaces, *(port.ctypes.data for port in ports))
        first, last = self._records + stage.start * 8, self._records + stage.end * 8
        block = (pool.handle, first, last, len(spaces), self._scratch, self.plan.scratch, 0, *spaces)
        return np.array(block, np.int64)

    def run(self, pool: Pool, stage: Stage, ports: list[NDArray[Any]], times: NDArray[np.int64] | None = None) -> None:
        """Run a stage's records; `times` gets nanoseconds per record of the stage, added."""
        spaces = (*self._spaces, *(port.ctypes.data for port in ports))
        pointers = (ctypes.c_void_p * len(spaces))(*spaces)
        self.library.run(
            pool.handle, self._records + stage.start * 8, self._records + stage.end * 8, pointers, len(spaces),
            self._scratch, self.plan.scratch, None if times is None else times.ctypes.data,
        )  # fmt: skip
