"""How fast a layer could be at best on this machine: its roofline, from measured peaks, and what bounds it.

Source: Williams, Waterman and Patterson, "Roofline" (CACM 52, 2009); here with a bandwidth per level of the memory and
the bytes that a layer must move: weights as encoded, what it reads and what it makes, each once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from prunus.runtime.cpu import describe
from prunus.runtime.native import Library, allocate
from prunus.runtime.program import Op, Program

Bound = Literal["compute", "memory", "overhead"]
OVERHEAD_S = 2e-6  # a step costs that much whatever it does: waking threads, reading its record
LARGE = 64 << 20  # bytes, beyond any cache where none is known


@dataclass(frozen=True)
class Machine:
    """Measured limits of one core. `operations`: per second, by channels per word. `levels`: (bytes that it holds,
    bytes per second) from the nearest cache to memory."""

    operations: dict[int, float]
    levels: tuple[tuple[float, float], ...]

    def bandwidth(self, n_bytes: float) -> float:
        """Bytes per second of the nearest level that holds so many."""
        return next(speed for size, speed in self.levels if n_bytes <= size)


@dataclass(frozen=True)
class Roofline:
    """`seconds`: the least time; `bound`: what sets it. "overhead" where it is less than any step takes."""

    seconds: float
    bound: Bound


@cache
def machine(library: Library) -> Machine:
    """Measure this machine, in some 50 ms; once per process and library."""
    cpu = describe()
    sizes = [size for size in (cpu.l2_bytes, cpu.l3_bytes) if size] or [1 << 20]
    largest = allocate(max(LARGE, 2 * sizes[-1]) // 4)
    largest[:] = 1.0
    found = []
    for size, used in ((sizes[0], sizes[0] // 2), *((s, max(s // 4, 2 * sizes[0])) for s in sizes[1:])):
        found.append((float(size), float(library.bandwidth(largest.ctypes.data, used // 4, 20))))
    found.append((np.inf, float(library.bandwidth(largest.ctypes.data, largest.size, 2))))
    return Machine({pack: float(library.peak(pack)) for pack in (1, 2, 4)}, tuple(found))


def weight_bytes(program: Program, op: Op) -> int:
    """Bytes of a layer's weights and indices, as encoded."""
    return sum(_encoded_bytes(program, op.attrs.get(key, {})) for key in ("second", "over_time")) + _encoded_bytes(
        program, op.attrs
    )


def _encoded_bytes(program: Program, attrs: Mapping[str, Any]) -> int:
    prefix = attrs.get("encoding")
    return sum(array.nbytes for name, array in program.constants.items() if name.rpartition(".")[0] == prefix)


def weights_read(program: Program, op: Op, all_weights: int) -> list[tuple[int, int]]:
    """Bytes of weights that a run reads, with how many have been read since they were last: those of the whole network,
    or of a recurrent layer's step, which are read at each."""
    whole = weight_bytes(program, op)
    t = program.tensors[op.inputs[0]].shape[0] if op.kind == "recurrent" else 1
    if t == 1:
        return [(whole, all_weights)]
    over_time = op.attrs.get("over_time", {})
    rest = _encoded_bytes(program, over_time)
    blocks = -(-t // over_time["block"]) if over_time else 0
    return [((whole - rest) * t, whole - rest), (rest * blocks, all_weights)]


def activation_bytes(program: Program, op: Op, batch: int) -> int:
    """Bytes of what an operator reads and makes."""
    return sum(4 * int(np.prod(program.words(name, batch), dtype=np.int64)) for name in (*op.inputs, *op.outputs))


def roofline(
    program: Program, op: Op, batch: int, threads: int, limits: Machine, flops: float, all_weights: int
) -> Roofline:
    """The least time of a layer of so many operations (kept weights only).

    Weights come from the level that holds those of the whole network, `all_weights` bytes: all are read in each run;
    those of a step from the level that holds them, at each; what flows comes from the level that holds it.
    Arithmetic and caches count once per thread, memory once.
    """
    pack = program.tensors[op.inputs[0]].pack
    compute = flops / (limits.operations[pack] * threads)
    moved = 0.0
    flowing = activation_bytes(program, op, batch)
    for n_bytes, held in (*weights_read(program, op, all_weights), (flowing, flowing)):
        speed = limits.bandwidth(held)
        moved += n_bytes / (speed if speed == limits.levels[-1][1] else speed * threads)
    seconds = max(compute, moved)
    if seconds < OVERHEAD_S:
        return Roofline(seconds, "overhead")
    return Roofline(seconds, "compute" if compute >= moved else "memory")
