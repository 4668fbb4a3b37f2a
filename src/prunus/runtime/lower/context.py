"""What a lowering works with: layouts, temporaries, tables, and the list of records it appends to.

Records are collected with symbolic addresses (Ref) and get their numbers when memory has been placed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.layout import LINE, Layout, Shape, c_strides, up
from prunus.runtime.program import Op, Program
from prunus.runtime.records import (
    ACTIVATIONS,
    CONSTANTS,
    NOWHERE,
    RANK,
    TABLES,
    address,
    float_bits,
)


@dataclass(frozen=True)
class Ref:
    """Element `offset` of a buffer of the arena, or of a port."""

    buffer: str
    offset: int = 0

    def __add__(self, elements: int) -> "Ref":
        return Ref(self.buffer, self.offset + elements)


Address = Ref | int
Record = tuple[str, dict[str, Any]]  # kind and fields
Fill = Callable[[NDArray[np.int32]], None]


@dataclass
class Draft:
    """A plan in the making."""

    program: Program
    batch: int
    layouts: dict[str, Layout]
    views: dict[str, tuple[str, int]]  # tensor -> buffer that it lies in, and offset of that buffer's start
    constant_offsets: dict[str, int]
    records: list[Record] = field(default_factory=list)
    tables: list[tuple[int, int, Fill]] = field(default_factory=list)  # place, size, what writes it
    table_size: int = 0
    known: dict[bytes, int] = field(default_factory=dict)  # tables by what they hold
    layers: dict[tuple[str, bytes, bytes], tuple[Any, dict[str, Any]]] = field(
        default_factory=dict
    )  # tables of layers, by name and offsets of columns
    temporaries: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> size, step
    band: str | None = None  # inside a chain: names what asks for temporaries, the same ones each time
    lent: int = 0  # how many it was given
    scratch: int = 0
    states: dict[str, int] = field(default_factory=dict)  # name -> size of what is kept from run to run
    starting: bool = False  # records are for the start of a stream, not for each run
    starts: list[Record] = field(default_factory=list)
    step: int = 0
    owners: list[int] = field(default_factory=list)  # of each record, its op
    uses: dict[str, list[int]] = field(default_factory=dict)  # buffer -> steps that touch it

    def layout(self, tensor: str) -> Layout:
        """How a tensor lies in memory."""
        return self.layouts[tensor]

    def place(self, tensor: str, elements: int = 0) -> tuple[str, int]:
        """Buffer of a tensor, and where in it the one that lies so many elements behind the first is."""
        buffer, offset = self.views.get(tensor, (tensor, 0))
        return buffer, offset + self.layouts[tensor].first + elements

    def at(self, tensor: str) -> Ref:
        """Address of a tensor's first element."""
        buffer, element = self.place(tensor)
        self.uses.setdefault(buffer, []).append(self.step)
        return Ref(buffer, element)

    def constant(self, name: str | None) -> int:
        """Address of a constant, NOWHERE for None."""
        return NOWHERE if name is None else address(CONSTANTS, self.constant_offsets[name])

    def table(self, values: NDArray[Any]) -> int:
        """Address of an array kept with the plan: 32-bit integers, or float32 by their bits. Equal ones are kept once;
        large ones are better written by `late_table`."""
        flat = np.ascontiguousarray(values).ravel()
        flat = flat.view(np.int32) if flat.dtype == np.float32 else flat.astype(np.int32, copy=False)
        key = flat.tobytes()
        if key not in self.known:
            self.known[key] = self.late_table(flat.size, lambda out: np.copyto(out, flat))
        return self.known[key]

    def late_table(self, size: int, fill: Fill) -> int:
        """Address of `size` integers that `fill` writes in their place once the size of all is known, so that a plan's
        tables are in memory once."""
        place = self.table_size
        self.tables.append((place, size, fill))
        self.table_size += up(max(size, 1), LINE)
        return address(TABLES, place)

    def write_tables(self) -> NDArray[np.int32]:
        """All tables in one array, each on a cache line."""
        tables = np.zeros(max(self.table_size, LINE), np.int32)
        for place, size, fill in self.tables:
            fill(tables[place : place + size])
        return tables

    def temporary(self, size: int) -> Ref:
        """A buffer that lives during this step."""
        if self.band is None:
            return self.kept(f"#{self.step}.{len(self.temporaries)}", size)
        self.lent += 1
        return self.kept(f"#{self.band}.{self.lent}", size)

    def kept(self, name: str, size: int) -> Ref:
        """The buffer of that name, at least of that size, that lives during this step."""
        self.temporaries[name] = (max(size, self.temporaries.get(name, (0, 0))[0]), self.step)
        return Ref(name)

    def state(self, size: int) -> Ref:
        """A buffer that is kept from run to run."""
        name = f"#state{len(self.states)}"
        self.states[name] = size
        return Ref(name)

    def emit(self, kind: str, **fields: Any) -> None:
        """Append a record."""
        if self.starting:
            self.starts.append((kind, fields))
            return
        self.records.append((kind, fields))
        self.owners.append(self.step)

    def need_scratch(self, elements: int) -> None:
        """Each thread gets at least that much."""
        self.scratch = max(self.scratch, elements)


def axes(shape: Shape) -> list[int]:
    """Which of the record's RANK axes each axis of `shape` is: the first two come first, the others last."""
    rank = len(shape)
    assert rank <= RANK, f"rank {rank} is more than {RANK}"
    if rank <= 2:
        return list(range(rank))
    return [0, 1, *range(RANK - (rank - 2), RANK)]


def strided(prefix: str, shape: Shape, values: Shape) -> dict[str, int]:
    """Fields such as size0..5 or in_stride0..5 from one value per axis of `shape`."""
    return {f"{prefix}{axis}": value for axis, value in zip(axes(shape), values, strict=True)}


def copy(draft: Draft, out: Address, out_strides: Shape, x: Address, x_strides: Shape, shape: Shape) -> None:
    """Emit a copy of a box; nothing if it is empty."""
    if not all(shape):
        return
    shape, out_strides, x_strides = _runs(shape, out_strides, x_strides)
    draft.emit(
        "copy", out=out, x=x, **strided("size", shape, shape), **strided("out_stride", shape, out_strides),
        **strided("in_stride", shape, x_strides),
    )  # fmt: skip


TURNED = 64  # rows of a task of `turn`


def turn(
    draft: Draft, out: Address, out_strides: tuple[int, int], x: Address, x_strides: tuple[int, int],
    shape: tuple[int, int, int],
) -> None:  # fmt: skip
    """Emit copies of [images][columns][rows] to [images][rows][columns], rows and columns without gaps; `shape` is
    images, rows, columns, the strides those of images and of rows, or columns."""
    images, rows, columns = shape
    whole = rows // TURNED * TURNED
    for first, n, of in ((0, whole // TURNED, TURNED), (whole, 1, rows - whole)):
        if n and of:
            draft.emit(
                "copy", out=out + first * out_strides[1], x=x + first, size0=n, size1=images,
                out_stride0=of * out_strides[1], in_stride0=of, out_stride1=out_strides[0], in_stride1=x_strides[0],
                **{f"size{RANK - 2}": of, f"out_stride{RANK - 2}": out_strides[1], f"in_stride{RANK - 2}": 1},
                **{f"size{RANK - 1}": columns, f"out_stride{RANK - 1}": 1, f"in_stride{RANK - 1}": x_strides[1]},
            )  # fmt: skip


LONG_RUN = 1 << 14  # elements: long enough for one thread at a time


def _runs(shape: Shape, *strides: Shape) -> tuple[Shape, ...]:
    """A box of at least 3 axes, with its last ones made one where all sides go through them without gaps, until a run
    is long."""
    sizes, steps = list(shape), [list(side) for side in strides]
    while len(sizes) > 1 and sizes[-1] < LONG_RUN:
        if any(side[-2] != side[-1] * sizes[-1] for side in steps) and sizes[-2] > 1:
            break
        sizes[-2:] = [sizes[-2] * sizes[-1]]
        for side in steps:
            del side[-2]
    for place in range(len(sizes) - 1, 2):  # the last axis is the inner loop, the first two are tasks
        sizes.insert(place, 1)
        for side in steps:
            side.insert(place, 0)
    return tuple(sizes), *(tuple(side) for side in steps)


def clear_padding(draft: Draft, tensor: str) -> None:
    """Before a planar tensor is written element by element: its padding everywhere, if any reader relies on it. Chains
    see to that themselves."""
    layout = draft.layout(tensor)
    if draft.band is not None:
        return
    if len(layout.shape) == 4 and tensor in draft.views:
        clear_channels(draft, tensor, 0, layout.shape[1])
    elif _has_gaps(layout):
        pad = draft.program.tensors[tensor].pad
        draft.emit("fill", out=draft.at(tensor) + -layout.first, count=layout.size, value=pad)


def clear_channels(draft: Draft, tensor: str, first: int, count: int) -> None:
    """As `clear_padding`, of some channels."""
    layout, pad = draft.layout(tensor), draft.program.tensors[tensor].pad
    for image in range(layout.shape[0] if _has_gaps(layout) else 0):
        start = image * layout.batch + first * layout.plane - up(layout.front, LINE)
        draft.emit("fill", out=draft.at(tensor) + start, count=count * layout.plane, value=pad)


def _has_gaps(layout: Layout) -> bool:
    """Planar, with padding that a reader may rely on."""
    planar = len(layout.shape) == 4 and not layout.contiguous
    return planar and bool(layout.front or layout.tail or layout.pitch > layout.shape[3])


def as_contiguous(draft: Draft, tensor: str) -> Ref:
    """Address of a tensor's elements in C order: its own, or those of a temporary copy."""
    layout = draft.layout(tensor)
    if layout.contiguous:
        return draft.at(tensor)
    temporary = draft.temporary(int(np.prod(layout.shape)))
    copy(draft, temporary, c_strides(layout.shape), draft.at(tensor), layout.strides, layout.shape)
    return temporary


def activation_fields(draft: Draft, op: Op) -> dict[str, Any]:
    """bias, slope, activation, p0, p1 of a record from an operator's attributes."""
    kind, params = op.attrs.get("activation") or ("none", ())
    params = [*params, 0.0, 0.0]
    fields = {
        "slope": draft.constant(op.attrs.get("slope")),
        "activation": ACTIVATIONS["leaky_relu" if kind == "prelu" else kind],
        "p0": float_bits(params[0]),
        "p1": float_bits(params[1]),
    }
    return fields
