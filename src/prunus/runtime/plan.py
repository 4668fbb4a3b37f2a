"""A plan: a program laid out for one batch size, as the executor reads it. Made with numpy alone, in milliseconds."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.arrange import arrange
from prunus.runtime.layout import LINE, Layout, c_strides, up
from prunus.runtime.lower.context import Draft, Ref, as_contiguous, copy
from prunus.runtime.lower.ops import LOWERINGS
from prunus.runtime.place import Buffer, place
from prunus.runtime.program import Op, Program, outside_tensors
from prunus.runtime.records import ARENA, PORTS, address, record
from prunus.runtime.share import taken_over, without_fills

SLACK = 1 << 12  # elements past the last buffer: lanes beyond the last pixel may read there


@dataclass(frozen=True)
class Stage:
    """Records [start, end) of the plan, or a part that another engine runs between them."""

    start: int
    end: int
    partition: Op | None = None


@dataclass(frozen=True)
class Plan:
    """What `prunus_run` needs. Sizes in elements of 4 bytes; `owners` gives for each record the index of its op."""

    batch: int
    records: NDArray[np.int64]
    owners: tuple[int, ...]
    tables: NDArray[np.int32]
    arena: int
    scratch: int
    stages: tuple[Stage, ...]
    layouts: dict[str, Layout]
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
    for draft.step, op in enumerate(program.ops):
        if op.kind == "onnxruntime":
            foreign[op.name] = _foreign(draft, op)
            breaks.append((draft.step, op))
        else:
            LOWERINGS[op.kind](draft, op)
    draft.step = len(program.ops)
    _emit_outputs(draft)
    offsets, arena = _place(draft)
    starts, rows = [0], []
    for kind, fields in draft.records:
        row = record(kind, **{key: _number(value, offsets) for key, value in fields.items()})
        rows.append(row)
        starts.append(starts[-1] + len(row))
    stages, begin = [], 0
    for step, op in breaks:
        index = bisect_right(draft.owners, step)
        stages += [Stage(starts[begin], starts[index]), Stage(0, 0, op)]
        begin = index
    stages.append(Stage(starts[begin], starts[-1]))
    flat = np.array([value for row in rows for value in row], np.int64)
    return Plan(
        batch, flat, tuple(draft.owners), draft.write_tables(), arena + SLACK, up(draft.scratch, LINE) + LINE,
        tuple(stage for stage in stages if stage.partition or stage.end > stage.start), layouts,
        {part: {name: _number(ref, offsets) for name, ref in refs.items()} for part, refs in foreign.items()},
    )  # fmt: skip


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
    steps: dict[str, list[int]] = {}
    for name, used in draft.uses.items():
        steps.setdefault(shared.get(name, name), []).extend(used)
    buffers = []
    for name, used in steps.items():
        if name not in draft.program.inputs and name not in outside_tensors(draft.program):
            buffers.append(Buffer(name, draft.layout(name).size, min(used), max(used)))
    buffers += [Buffer(name, size, step, step) for name, size, step in draft.temporaries]
    offsets, arena = place(buffers)
    offsets |= {name: offsets[other] for name, other in shared.items()}
    ports = {name: address(PORTS + i, 0) for i, name in enumerate(draft.program.inputs)}
    return {name: address(ARENA, offset + LINE * 64) for name, offset in offsets.items()} | ports, arena + LINE * 64


def _number(value: Ref | int, offsets: dict[str, int]) -> int:
    return offsets[value.buffer] + value.offset if isinstance(value, Ref) else int(value)
