"""Sequences of another length than a program was compiled for: shapes and attributes that grow with the number of steps
are known by how much, so that a loaded artefact plans anew without its model.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.errors import FeedError
from prunus.runtime.program import Program, Shape


def with_steps(program: Program, fed: Mapping[str, Shape]) -> Program:
    """The program for inputs of these shapes. What depends on them but isn't part of a plan stays as it was chosen.

    Raises FeedError: an input differs in another axis than that of its steps, lengths differ, or are too short.
    """
    steps = program.steps
    assert steps is not None, "only such programs are asked"
    found = {}
    for name in program.inputs:
        shape, expected = fed[name], list(program.tensors[name].shape)
        axis = steps.inputs.get(name)
        same = len(shape) == len(expected) and all(
            a == b or i == axis for i, (a, b) in enumerate(zip(shape, expected, strict=True))
        )
        if not same or (axis is not None and shape[axis] < steps.least):
            least = "steps" if steps.least == 1 else f"{steps.least} or more steps"
            said = [least if i == axis else n for i, n in enumerate(expected)]
            raise FeedError(f"input {name!r}: shape {list(shape)}, expected [{', '.join(map(str, said))}]")
        if axis is not None:
            found[name] = shape[axis]
    if len(set(found.values())) > 1:
        raise FeedError("inputs of different numbers of steps: " + ", ".join(f"{k} {n}" for k, n in found.items()))
    n = next(iter(found.values()))
    more = n - steps.planned
    tensors = {
        name: replace(tensor, shape=grown(tensor.shape, steps.tensors[name], more)) if name in steps.tensors else tensor
        for name, tensor in program.tensors.items()
    }
    ops = tuple(
        replace(op, attrs={**op.attrs, **{k: grown(op.attrs[k], by, more) for k, by in steps.attrs[op.name].items()}})
        if op.name in steps.attrs
        else op
        for op in program.ops
    )
    return replace(program, tensors=tensors, ops=ops, chains=(), steps=replace(steps, planned=n))


def grown(value: Any, by: Any, more: int) -> Any:
    """A number, or numbers in lists, with `more` times as much added as `by` says."""
    if isinstance(value, list | tuple):
        return type(value)(grown(a, b, more) for a, b in zip(value, by, strict=True))
    return value + by * more
