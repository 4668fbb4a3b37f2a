"""Outputs written over an input that nobody needs any more and that lies the same way: less memory, and one stream
through it less.

That is safe where each vector of the input is read right before the output's is stored in its place: residuals of
convolutions, and what is computed element by element. It isn't where partial sums wait in the output, nor for the
depthwise kernel of float32, whose last block of rows and pixels may be computed twice.
"""

from collections.abc import Sequence
from typing import Any

from prunus.runtime.lower.context import Draft, Ref
from prunus.runtime.program import Op, outside_tensors
from prunus.runtime.records import RANK

ADDING = ("conv", "winograd", "packed_depthwise")  # records that add a residual
ELEMENTWISE = ("map", "binary")


def taken_over(draft: Draft) -> dict[str, str]:
    """Output -> the buffer that it shares in the end."""
    program, shared = draft.program, dict[str, str]()
    fixed = {*program.inputs, *outside_tensors(program), *draft.views}
    for (kind, fields), step in zip(draft.records, draft.owners, strict=True):
        op = program.ops[step] if step < len(program.ops) else None
        if op is None or op.outputs[0] in fixed:
            continue
        for other in _candidates(kind, fields, op):
            if other not in fixed and _may_take(draft, op, other, step):
                shared[op.outputs[0]] = shared.get(other, other)
                break
    return shared


def _candidates(kind: str, fields: dict[str, object], op: Op) -> Sequence[str]:
    """Inputs that a record reads element by element as it writes."""
    if kind in ADDING and isinstance(fields["residual"], Ref) and not fields.get("sums_in_out"):
        return op.inputs[1:]
    return op.inputs if kind in ELEMENTWISE else ()


def _may_take(draft: Draft, op: Op, other: str, step: int) -> bool:
    """Nobody needs `other` later, it lies as the output does, and the operator reads it in no other way."""
    out, tensors = op.outputs[0], draft.program.tensors
    if draft.layout(other) != draft.layout(out) or tensors[other].pack != tensors[out].pack:
        return False
    if max(draft.uses[other]) != step or min(draft.uses[out]) != step:
        return False
    elementwise = op.kind != "conv"  # else the first input is read all over
    rest = [name for i, name in enumerate(op.inputs) if name != other or (i == 0 and not elementwise)]
    return all(draft.place(name)[0] != other for name in rest)


def without_fills(draft: Draft, shared: dict[str, str]) -> None:
    """Take away the records that would clear what is written over: its padding is there already."""
    kept = [
        (record, owner) for record, owner in zip(draft.records, draft.owners, strict=True)
        if not (record[0] == "fill" and record[1]["out"].buffer in shared)
    ]  # fmt: skip
    draft.records, draft.owners = [record for record, _ in kept], [owner for _, owner in kept]


def without_detours(draft: Draft) -> None:
    """Take away copies that only carry on what another record can read or write where it is wanted: of a small network
    they are a good part of the time. An input that is copied twice is copied once; a cell writes its outputs to the
    caller's array. Not where there is a reader that isn't among the records: a partition, or bodies of chains."""
    if any(kind == "chain" for kind, _ in draft.records) or any(op.kind == "onnxruntime" for op in draft.program.ops):
        return
    uses: dict[str, list[tuple[int, str]]] = {}
    for i, (_, fields) in enumerate(draft.records):
        for key, value in fields.items():
            if isinstance(value, Ref):
                uses.setdefault(value.buffer, []).append((i, key))
    for _, fields in draft.starts:
        for value in fields.values():
            if isinstance(value, Ref):
                uses.pop(value.buffer, None)
    gone = set[int]()
    for buffer, used in uses.items():
        (last, key), before = used[-1], used[:-1]
        kind, fields = draft.records[last]
        n = _flat(kind, fields)
        if buffer in draft.program.inputs or key != "x" or not n or fields["x"].offset or not before:
            continue
        first, (other, source) = before[0][0], draft.records[before[0][0]]
        if [key for _, key in before] == ["out"] and source["out"] == fields["x"] and _flat(other, source) == n:
            if isinstance(source["x"], Ref) and source["x"].buffer in draft.program.inputs:
                fields["x"] = source["x"]
                gone.add(first)
        elif all(draft.records[i][0] == "cell" and key == "out" for i, key in before) and isinstance(
            fields["out"], int
        ):
            for i, _ in before:
                cell = draft.records[i][1]
                cell["out"] = fields["out"] + cell["out"].offset
            gone.add(last)
    draft.records = [record for i, record in enumerate(draft.records) if i not in gone]
    draft.owners = [owner for i, owner in enumerate(draft.owners) if i not in gone]


def _flat(kind: str, fields: dict[str, Any]) -> int:
    """How many neighbours a record copies one by one; 0: it does something else."""
    if kind != "copy" or any(fields.get(f"size{axis}", 1) != 1 for axis in range(RANK - 1)):
        return 0
    last = RANK - 1
    strides = (fields.get(f"out_stride{last}"), fields.get(f"in_stride{last}"))
    return int(fields.get(f"size{last}", 1)) if strides == (1, 1) else 0
