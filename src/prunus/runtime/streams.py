"""Inferences at the same time: each stream has threads and an arena of its own, and runs one inference at a time.

Program, plan, constants and machine code are only read, so that streams share them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import TargetError
from prunus.runtime.native import Bound, Library, Pool, here
from prunus.runtime.plan import Plan
from prunus.runtime.program import Program
from prunus.runtime.quick import Quick, quick_run

MOST = 256  # streams of a session; threads of a stream
T = TypeVar("T")


@final
class Stream:
    """Threads that stay, and the memory for one plan, made when it is first run."""

    def __init__(self, library: Library, threads: int, alone: bool = True) -> None:
        self._library, self._threads, self._alone = library, threads, alone
        self.pool = Pool(library, threads, alone)
        self.bound: Bound | None = None
        self.quick: Quick | None = None

    def bind(self, program: Program, plan: Plan, constants: NDArray[np.float32]) -> None:
        """Get the memory that `plan` needs, and give back what another one had."""
        self.bound = self.quick = None
        self.bound = Bound(self._library, plan, constants, self._threads)
        self.restart(program)
        self.quick = quick_run(program, self.bound, self.pool)

    def restart(self, program: Program) -> None:
        """Set the states that are kept from run to run to their first values."""
        if self.bound is not None and self.bound.plan.start is not None:
            nothing = [np.empty(0, np.float32)] * (len(program.inputs) + len(program.outputs))
            self.bound.run(self.pool, self.bound.plan.start, nothing)

    def wake(self) -> None:
        """See to it that there are threads: a forked process has the memory but not the threads."""
        if self.pool.process != here.process:
            self.pool = Pool(self._library, self._threads, self._alone)
            self.quick = None

    @property
    def n_bytes(self) -> int:
        """Memory of the arena and the scratch of each thread."""
        bound = self.bound
        return bound.arena.nbytes + bound.scratch.nbytes if bound else 0


@final
class Turns(Generic[T]):
    """Things that are for one caller at a time."""

    def __init__(self, things: Sequence[T]) -> None:
        self._free = list(things)
        self._tokens: SimpleQueue[None] = SimpleQueue()  # as many as there are free ones
        for _ in things:
            self._tokens.put(None)

    def get(self) -> T:
        """A free one, to be put back; waits until there is one. The one used last comes first: its memory is in a
        cache, and its threads may be awake."""
        self._tokens.get()
        return self._free.pop()

    def put(self, thing: T) -> None:
        """Give one back."""
        self._free.append(thing)
        self._tokens.put(None)

    @contextmanager
    def take(self) -> Iterator[T]:
        """A free one, while the block runs."""
        thing = self.get()
        try:
            yield thing
        finally:
            self.put(thing)


def check_streams(streams: int) -> int:
    """Number of streams to have.

    Raises TargetError: not a positive number.
    """
    if not isinstance(streams, int) or streams < 1:
        raise TargetError(f"streams={streams!r}: expected a positive number")
    return min(streams, MOST)
