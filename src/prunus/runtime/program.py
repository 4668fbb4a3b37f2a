"""A program: the compiled network, before it is laid out for a batch size. It is what an artefact holds.

Operators are those of the graph with their weights encoded; every attribute is plain JSON, constants are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.encoding import ARRAYS, Encoding, expand, expand_columns

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """Shape at batch 1 (the file's own, where the batch is fixed) and numpy dtype name; -1 is unknown.

    `pack` neighbouring channels (axis 1) share a word of 4 bytes: 1 float32, 2 bfloat16, or 4 uint8, which mean
    (byte - zero) * scale.
    """

    shape: Shape
    dtype: str = "float32"
    pack: int = 1
    scale: float = 1.0
    zero: int = 0

    @property
    def pad(self) -> int:
        """The word that means zero in all its channels."""
        return self.zero * 0x01010101 if self.pack == 4 else 0


@dataclass(frozen=True)
class Op:
    """One operator: `inputs` and `outputs` name tensors, `attrs` hold plain values and names of constants."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chain:
    """Operators `first` to `last`, computed depth first: `rows` rows of the last one's output at a time, in as many
    parts as there are threads (see `runtime.bands`). What is made inside is read by nobody outside."""

    first: int
    last: int
    rows: int
    parts: int


@dataclass(frozen=True)
class Steps:
    """What grows with the number of steps of sequences, from `planned` on: by axis of tensors and by number in
    attributes of operators, how much per step. `inputs`: which axis of each counts them; `least`: the fewest."""

    planned: int
    least: int
    inputs: Mapping[str, int]
    tensors: Mapping[str, Sequence[int]]
    attrs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Program:
    """A network for a target. `batch`: the leading dimension of all tensors scales with the batch size. `steps`: how it
    is at another number of them, where that is known."""

    name: str
    target: str
    lanes: int  # float32 per vector of the target
    batch: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    constants: Mapping[str, NDArray[Any]]
    chains: tuple[Chain, ...] = ()
    steps: Steps | None = None

    @property
    def streaming(self) -> bool:
        """Recurrent layers keep their states from run to run."""
        return any(op.attrs.get("streaming") for op in self.ops)

    def shape(self, name: str, batch: int) -> Shape:
        """Shape of a tensor at a batch size."""
        shape = self.tensors[name].shape
        return (shape[0] * batch, *shape[1:]) if self.batch and shape and shape[0] > 0 else shape

    def words(self, name: str, batch: int) -> Shape:
        """Shape of a tensor as it lies in memory, in words of 4 bytes."""
        shape, pack = self.shape(name, batch), self.tensors[name].pack
        return shape if pack == 1 else (shape[0], -(-shape[1] // pack), *shape[2:])

    def groups(self, op: Op) -> Encoding:
        """The row groups of an operator's weights, but for their columns, of which there may be millions."""
        arrays = self._arrays(op)
        return expand(tuple(op.attrs["matrix"]), {**arrays, "steps": arrays["steps"][:0], "jumps": arrays["jumps"][:0]})

    def n_columns(self, op: Op) -> int:
        """How many columns the row groups of an operator's weights have in all."""
        return int(self._arrays(op)["steps"].size)

    def write_columns(self, op: Op, out: NDArray[np.int32]) -> None:
        """Write the columns of those row groups to int32[n_columns]."""
        expand_columns(self._arrays(op), out)

    def _arrays(self, op: Op) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(self.constants[f"{op.attrs['encoding']}.{name}"]) for name in ARRAYS}


def outside_tensors(program: Program) -> set[str]:
    """Tensors that never lie in the arena: what only other engines and the caller touch (not float32, or -1 dims)."""
    return {name for name, tensor in program.tensors.items() if tensor.dtype != "float32" or -1 in tensor.shape}
