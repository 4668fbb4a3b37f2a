"""A plan: a program laid out for one batch size, as the executor reads it. Made with numpy alone, in milliseconds."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.arrange import arrange
from prunus.runtime.layout import LINE, Layout, c_strides, up
from prunus.runtime.lower.chain import Body
from prunus.runtime.lower.chain import lower as lower_chain
from prunus.runtime.lower.context import Draft, Ref, as_contiguous, copy
from prunus.runtime.lower.ops import LOWERINGS
from prunus.runtime.place import Buffer, place
from prunus.runtime.program import Op, Program, outside_tensors
from prunus.runtime.records import ARENA, PORTS, address, record
from prunus.runtime.share import taken_over, without_detours, without_fills

SLACK = 1 << 12  # elements past the last buffer: lanes beyond the last pixel may read there


@dataclass(frozen=True)
class Stage:
    """Records [start, end) of the plan with their `slots`, or a part that another engine runs between them."""

    start: int
    end: int
    slots: int
    partition: Op | None = None


@dataclass(frozen=True)
class Slot:
    """Where the time of a record is counted: for the op of that index, and how much of it. The records `inside` a chain
    are counted instead of the chain's own; its parts run at the same time."""

    op: int
    share: float
    inside: bool = False


@dataclass(frozen=True)
class Plan:
    """What `prunus_run` needs. Sizes in elements of 4 bytes; `slots` are of each record, those inside chains behind
    their own."""

    batch: int
    records: NDArray[np.int64]
    slots: tuple[Slot, ...]
    tables: NDArray[np.int32]
    arena: int
    scratch: int
    stages: tuple[Stage, ...]
    layouts: dict[str, Layout]
    start: Stage | None  # of a stream: records that set the states, which lie at the start of the arena
    states: int  # elements of it up to where they end
    foreign: dict[str, dict[str, int]]  # per partition, where in the arena it reads and writes tensors in C order


def constant_offsets(program: Program) -> dict[str, int]:
    """Where each constant lies in the constants' space, in elements: in order, on cache lines."""
    offsets, size = {}, 0
    for name, array in program.constants.items():
        offsets[name] = size
        size += up(-(-array.nbytes // 4), LINE)
    return offsets


def make_plan(program: Program, batch: int = 1) -> Plan:
    """Lay out a program for a batch size."""
    layouts, views = arrange(program, batch)
    draft = Draft(program, batch, layouts, views, constant_offsets(program))
    breaks: list[tuple[int, Op]] = []  # step and partition
    foreign: dict[str, dict[str, Ref]] = {}
    chains = {step: chain for chain in program.chains for step in range(chain.first, chain.last + 1)}
    for draft.step, op in enumerate(program.ops):
        if draft.step in chains:
            if draft.step == chains[draft.step].last:
                lower_chain(draft, chains[draft.step])
        elif op.kind == "onnxruntime":
            foreign[op.name] = _foreign(draft, op)
            breaks.append((draft.step, op))
        else:
            LOWERINGS[op.kind](draft, op)
    draft.step = len(program.ops)
    _emit_outputs(draft)
    offsets, arena = _place(draft)
    ends, slots, rows = [(0, 0)], list[Slot](), list[list[int]]()
    for (kind, fields), owner in zip(draft.records, draft.owners, strict=True):
        if kind == "chain":
            rows.append(_chain(draft, fields["bodies"], owner, offsets, slots))
        else:
            rows.append(_numbers(kind, fields, offsets))
            slots.append(Slot(owner, 1.0))
        ends.append((ends[-1][0] + len(rows[-1]), len(slots)))
    stages, begin = [], 0
    for step, partition in [*breaks, (len(program.ops), None)]:
        index = bisect_right(draft.owners, step)
        (start, first), (end, last) = ends[begin], ends[index]
        stages += [Stage(start, end, last - first), *([Stage(0, 0, 0, partition)] if partition else [])]
        begin = index
    size = ends[-1][0]
    rows += [_numbers(kind, fields, offsets) for kind, fields in draft.starts]
    begin_at = size + sum(len(row) for row in rows[len(ends) - 1 :])
    start_stage = Stage(size, begin_at, len(draft.starts)) if draft.starts else None
    flat = np.array([value for row in rows for value in row], np.int64)
    return Plan(
        batch, flat, tuple(slots), draft.write_tables(), arena + SLACK, up(draft.scratch, LINE) + LINE,
        tuple(stage for stage in stages if stage.partition or stage.end > stage.start), layouts,
        start_stage, LINE * 64 + sum(up(n, LINE) for n in draft.states.values()),
        {part: {name: _number(ref, offsets) for name, ref in refs.items()} for part, refs in foreign.items()},
    )  # fmt: skip


def _numbers(kind: str, fields: dict[str, Any], offsets: dict[str, int]) -> list[int]:
    return record(kind, **{key: _number(value, offsets) for key, value in fields.items()})


def _chain(draft: Draft, bodies: list[Body], owner: int, offsets: dict[str, int], slots: list[Slot]) -> list[int]:
    """The row of a chain, with the rows of its bodies behind; their slots are appended."""
    inner = [[_numbers(*inside, offsets) for inside, _ in body] for body in bodies]
    n_slots = sum(len(body) for body in bodies)
    slots.append(Slot(owner, 0.0))
    slots += [Slot(op, 1 / len(bodies), True) for body in bodies for _, op in body]
    head = len(record("chain"))
    lengths = np.cumsum([head, *(sum(len(row) for row in body) for body in inner)])
    table = draft.table(np.stack([lengths, np.cumsum([0, *(len(body) for body in bodies)])], 1))
    row = record("chain", bodies=table, n_bodies=len(bodies), slots=n_slots)
    row += [value for body in inner for numbers in body for value in numbers]
    row[1] = len(row)
    return row


def _foreign(draft: Draft, op: Op) -> dict[str, Ref]:
    """Where a partition finds its inputs in C order, copied if need be, and puts its outputs."""
    outside = outside_tensors(draft.program) | set(draft.program.inputs)
    refs = {name: as_contiguous(draft, name) for name in op.inputs if name not in outside}
    return refs | {name: draft.at(name) for name in op.outputs if name not in outside}


def _emit_outputs(draft: Draft) -> None:
    """Copy what the network returns to the caller's arrays."""
    program = draft.program
    for i, name in enumerate(program.outputs):
        if name in outside_tensors(program):
            continue
        layout = draft.layout(name)
        port = address(PORTS + len(program.inputs) + i, 0)
        copy(draft, port, c_strides(layout.shape), draft.at(name), layout.strides, layout.shape)


def _place(draft: Draft) -> tuple[dict[str, int], int]:
    """Offsets of all buffers in the arena; records that turn out not to be needed are taken away."""
    shared = taken_over(draft)
    without_fills(draft, shared)
    without_detours(draft)
    outside = outside_tensors(draft.program)
    steps: dict[str, list[int]] = {}
    for name, used in draft.uses.items():
        steps.setdefault(shared.get(name, name), []).extend(used)
    buffers = []
    for name, used in steps.items():
        if name not in draft.program.inputs and name not in outside and name not in draft.temporaries:
            buffers.append(Buffer(name, draft.layout(name).size, min(used), max(used)))
    buffers += [Buffer(name, size, step, step) for name, (size, step) in draft.temporaries.items()]
    offsets, arena = place(buffers)
    kept = 0  # states come first, so that they lie alike in plans of any number of steps
    states = {}
    for name, size in draft.states.items():
        states[name], kept = kept, kept + up(size, LINE)
    offsets, arena = {name: offset + kept for name, offset in offsets.items()} | states, arena + kept
    offsets |= {name: offsets[other] for name, other in shared.items()}
    ports = {name: address(PORTS + i, 0) for i, name in enumerate(draft.program.inputs)}
    return {name: address(ARENA, offset + LINE * 64) for name, offset in offsets.items()} | ports, arena + LINE * 64


def _number(value: Ref | int, offsets: dict[str, int]) -> int:
    return offsets[value.buffer] + value.offset if isinstance(value, Ref) else int(value)
