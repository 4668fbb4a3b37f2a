"""The input's part of a recurrent layer for many steps at a time: one product with steps as pixels, which needs the
input and its sums turned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.runtime.layout import LINE, Layout, odd_lines, up
from prunus.runtime.lower import groups
from prunus.runtime.lower.context import Draft, Ref, copy, turn
from prunus.runtime.program import Op
from prunus.runtime.records import NOWHERE


@dataclass
class InputSums:
    """Sums of `block` steps, [step][n][pitch], biases included; of which steps, `first` is the earliest."""

    op: Op
    x: Layout
    source: Ref
    block: int
    pitch: int
    sums: Ref
    turned: Ref  # the block's input [i][plane], a plane being [n][steps]
    made: Ref  # its sums [rows][plane]
    plane: int
    fields: dict[str, Any]
    first: int = 0

    def of(self, step: int) -> Ref:
        """Where a step's sums are, of the block computed last."""
        return self.sums + (step - self.first) * self.x.shape[1] * self.pitch

    def emit(self, draft: Draft, steps: Sequence[int]) -> None:
        """Append the records for neighbouring steps."""
        attrs, (_, n, i) = self.op.attrs, self.x.shape
        t, rows = len(steps), attrs["over_time"]["matrix"][0]
        self.first = min(steps)
        source = self.source + self.first * self.x.strides[0]
        turn(draft, self.turned, (t, self.plane), source, (self.x.strides[1], self.x.strides[0]), (n, i, t))
        draft.emit("conv", x=self.turned, out=self.made, vectors=-(-t * n // draft.program.lanes), **self.fields)
        turn(draft, self.sums, (self.pitch, n * self.pitch), self.made, (t, self.plane), (n, t, rows))
        if more := attrs["matrix"][0] - rows:  # rows that have no input
            bias = attrs.get("bias")
            own = draft.table(np.zeros(1, np.float32)) if bias is None else draft.constant(bias) + rows
            strides = (0, 0, 0 if bias is None else 1)
            copy(draft, self.sums + rows, (n * self.pitch, self.pitch, 1), own, strides, (t, n, more))


def input_sums(draft: Draft, op: Op) -> InputSums:
    """Memory and tables for a layer's blocks of steps."""
    x, attrs, lanes = draft.layout(op.inputs[0]), op.attrs["over_time"], draft.program.lanes
    assert x.strides[2] == 1, "sequences are contiguous"
    (_, n, i), (rows, _), choice = x.shape, attrs["matrix"], attrs["choice"]
    plane, pitch = odd_lines(up(attrs["block"] * n, LINE)), odd_lines(op.attrs["matrix"][0])
    conv = Op("conv", attrs["encoding"], (), (), {**attrs, "bias": op.attrs.get("bias")})
    encoding, fields = groups.row_groups(draft, conv, np.arange(i) * plane)
    in_out = len(encoding.parts) > len(encoding.sections)
    draft.need_scratch(0 if in_out else rows * choice["tile"] * lanes)
    fields = fields | {
        "images": 1, "plane": plane, "residual": NOWHERE, "mask": NOWHERE, "tile": choice["tile"],
        "tiles_per_task": choice["tiles_per_task"], "pixels_outer": int(choice["pixels_outer"]), "rows": rows,
        "sums_in_out": int(in_out),
    }  # fmt: skip
    return InputSums(
        op, x, draft.at(op.inputs[0]), attrs["block"], pitch, draft.temporary(attrs["block"] * n * pitch),
        draft.temporary(i * plane), draft.temporary(rows * plane), plane, fields,
    )  # fmt: skip
