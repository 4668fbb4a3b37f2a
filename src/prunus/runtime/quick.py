"""The short way of a call: ports of few elements are copied to and from memory whose addresses the native code knows.

Looking up where an array lies takes numpy longer than a small network takes to run. A call whose feeds aren't exactly
what the plan was made for goes the long way, which knows what to say.
"""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.native import Bound, Pool
from prunus.runtime.program import Program, outside_tensors

MOST = 1 << 15  # elements of all ports: copying more takes longer than looking up
_FLOAT = np.dtype(np.float32)


@final
class Quick:
    """A bound plan with its ports. `pool`: the threads that it runs on."""

    def __init__(self, program: Program, bound: Bound, pool: Pool) -> None:
        layouts = bound.plan.layouts
        shapes = {name: layouts[name].shape for name in (*program.inputs, *program.outputs)}
        self.pool = pool
        self._outputs = [np.zeros(shapes[name], np.float32) for name in program.outputs]
        self._inputs = [(name, shapes[name], np.zeros(shapes[name], np.float32)) for name in program.inputs]
        ports = [*(array for _, _, array in self._inputs), *self._outputs]
        self._block = bound.prepared(pool, bound.plan.stages[0], ports)
        self._call, self._address = bound.library.call, self._block.ctypes.data
        self._bound = bound  # its memory is what the block points to

    def again(self) -> None:
        """What the native code does for the feeds of the last run, and nothing else: to measure it alone."""
        self._call(self._address)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]] | None:
        """All outputs, or None where the feeds are others than planned for."""
        if len(feeds) != len(self._inputs):
            return None
        for name, shape, place in self._inputs:
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.shape != shape or array.dtype is not _FLOAT:
                return None
            place[...] = array
        self._call(self._address)
        return [array.copy() for array in self._outputs]


def quick_run(program: Program, bound: Bound, pool: Pool) -> Quick | None:
    """The short way, where there is one: few elements, all float32, one stage of records."""
    ports = {*program.inputs, *program.outputs}
    if len(bound.plan.stages) != 1 or bound.plan.stages[0].partition or ports & outside_tensors(program):
        return None
    elements = sum(int(np.prod(bound.plan.layouts[name].shape)) for name in ports)
    return Quick(program, bound, pool) if elements <= MOST else None
