"""Outputs written over an input that nobody needs any more and that lies the same way: less memory, and one stream
through it less.

That is safe where each vector of the input is read right before the output's is stored in its place: residuals of
convolutions, and what is computed element by element. It isn't where partial sums wait in the output, nor for the
depthwise kernel of float32, whose last block of rows and pixels may be computed twice.
"""

from collections.abc import Sequence

from prunus.runtime.lower.context import Draft, Ref
from prunus.runtime.program import Op, outside_tensors

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
