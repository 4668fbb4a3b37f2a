"""Recurrent layers: steps unrolled. A step is a product of the layer's matrix with state and input side by side, then
the cell, which writes the new state where the next step's product reads it. Records of steps share all tables.

The matrix is [R | W], the recurrent part first, so that blocks of pruned columns begin where they did in both: W's
columns start at `input_start`. In long sequences the sums of W are there before (`over_time.py`), and R's are added.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.runtime.layout import LINE, c_strides, up
from prunus.runtime.lower.context import Address, Draft, Ref, copy
from prunus.runtime.lower.over_time import input_sums
from prunus.runtime.lower.product import product
from prunus.runtime.program import Op
from prunus.runtime.records import ACTIVATIONS, CELLS, NOWHERE, float_bits


@dataclass(frozen=True)
class State:
    """Where a layer's state lies: h in front of the input in `joined`, [n][pitch], and an LSTM's c."""

    joined: Ref
    pitch: int
    c: Ref | None
    c_pitch: int


def recurrent(draft: Draft, op: Op) -> None:
    """One direction of a GRU, LSTM or RNN."""
    attrs, (x, y) = op.attrs, (draft.layout(op.inputs[0]), draft.layout(op.outputs[0]))
    (t, n, i), h, rows = x.shape, y.shape[2], attrs["matrix"][0]
    state = _state(draft, op, n, h)
    draft.starting = attrs["streaming"]
    _begin(draft, op, state, n, h)
    draft.starting = False
    ahead = input_sums(draft, op) if "over_time" in attrs else None
    first = product(draft, attrs if ahead is None else {**attrs, "bias": None})
    second = product(draft, attrs["second"]) if "second" in attrs else None
    pitch = up(rows, LINE) if ahead is None else ahead.pitch
    sums = draft.temporary(n * pitch) if ahead is None else ahead.sums
    gated, after = (draft.temporary(n * up(h, LINE)) for _ in range(2)) if second else (None, None)
    cell = _cell_fields(draft, op) | {
        "images": n, "h": h, "sums_batch": pitch, "state": state.joined,
        "state_batch": state.pitch, "c": NOWHERE if state.c is None else state.c, "c_batch": state.c_pitch,
        "gated_batch": up(h, LINE),
    }  # fmt: skip
    base, out = draft.at(op.inputs[0]), draft.at(op.outputs[0])
    order = range(t - 1, -1, -1) if attrs["reverse"] else range(t)
    for at, step in enumerate(order):
        if ahead is None:
            copy(
                draft, state.joined + attrs["input_start"], (state.pitch, 1), base + step * x.strides[0],
                (x.strides[1], x.strides[2]), (n, i),
            )  # fmt: skip
            first.emit(draft, n, state.joined, state.pitch, sums, pitch, backwards=at % 2 > 0)
        else:
            if at % ahead.block == 0:
                ahead.emit(draft, order[at : at + ahead.block])
            sums = ahead.of(step)
            first.emit(draft, n, state.joined, state.pitch, sums, pitch, sums, pitch, backwards=at % 2 > 0)
        cell["sums"] = sums
        ending = {"step": step, "last": int(step == order[-1])}
        target = {"out": out + step * y.strides[0], "out_batch": y.strides[1]}
        if second is None:
            draft.emit("cell", function=CELLS[attrs["kind"]], gated=NOWHERE, **cell, **ending, **target)
            continue
        assert gated is not None and after is not None, "a second product has its vectors"
        reset = cell | {"lengths": NOWHERE, "out": NOWHERE}
        draft.emit("cell", function=CELLS["gru_reset"], gated=gated, **reset, step=step)
        second.emit(draft, n, gated, up(h, LINE), after, up(h, LINE), sums + 2 * h, pitch)
        draft.emit("cell", function=CELLS["gru_after"], gated=after, **cell, **ending, **target)
    _end(draft, op, state, n, h)


def _state(draft: Draft, op: Op, n: int, h: int) -> State:
    pitch = up(op.attrs["joined"], LINE)
    take = draft.state if op.attrs["streaming"] else draft.temporary
    joined = take(n * pitch)
    if op.attrs["kind"] != "lstm":
        return State(joined, pitch, None, 0)
    return State(joined, pitch, take(n * up(h, LINE)), up(h, LINE))


def _begin(draft: Draft, op: Op, state: State, n: int, h: int) -> None:
    """The states before the first step: given, constant or zero."""
    given = dict(zip(op.attrs["given"], op.inputs[1:], strict=True))
    for key, place, pitch in _places(state):
        source: Address
        if key in given:
            source, strides = draft.at(given[key]), draft.layout(given[key]).strides
        elif op.attrs[f"initial_{key}"] is not None:
            source, strides = draft.constant(op.attrs[f"initial_{key}"]), (h, 1)
        else:
            source, strides = draft.table(np.zeros(1, np.float32)), (0, 0)
        copy(draft, place, (pitch, 1), source, strides, (n, h))


def _end(draft: Draft, op: Op, state: State, n: int, h: int) -> None:
    """The states after the last step, to whoever wants them."""
    program = draft.program
    for name, (_, place, pitch) in zip(op.outputs[1:], _places(state), strict=True):
        if name in program.outputs or any(name in other.inputs for other in program.ops):
            copy(draft, draft.at(name), c_strides((n, h)), place, (pitch, 1), (n, h))


def _places(state: State) -> list[tuple[str, Ref, int]]:
    cell = [] if state.c is None else [("c", state.c, state.c_pitch)]
    return [("h", state.joined, state.pitch), *cell]


def _cell_fields(draft: Draft, op: Op) -> dict[str, Any]:
    """What is the same in all steps."""
    attrs = op.attrs
    fields: dict[str, Any] = {
        "clip": float_bits(np.inf if attrs["clip"] is None else attrs["clip"]),
        "input_forget": int(attrs["input_forget"]),
        "lengths": NOWHERE,
    }
    for gate, (kind, params) in zip("fge", attrs["activations"], strict=False):
        p0, p1 = [*params, 0.0, 0.0][:2]
        fields |= {gate: ACTIVATIONS[kind], f"{gate}_p0": float_bits(p0), f"{gate}_p1": float_bits(p1)}
    if "lengths" in attrs["given"]:
        fields["lengths"] = draft.at(op.inputs[1 + list(attrs["given"]).index("lengths")])
    elif attrs["lengths"] is not None:
        fields["lengths"] = draft.table(np.array(attrs["lengths"], np.int32))
    return fields
