"""A layer's matrix times vectors, as the one record that an operator emits per set of vectors; tables are made once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.runtime.layout import LINE, c_strides
from prunus.runtime.lower import groups, layer
from prunus.runtime.lower.context import Address, Draft, activation_fields, as_contiguous, clear_padding, copy
from prunus.runtime.program import Op
from prunus.runtime.records import NOWHERE
from prunus.sparsity import spans


@dataclass(frozen=True)
class Product:
    """A record but for its addresses."""

    kind: str
    fields: dict[str, Any]

    def emit(
        self, draft: Draft, images: int, x: Address, x_batch: int, out: Address, out_batch: int,
        residual: Address = NOWHERE, residual_batch: int = 0, *, backwards: bool = False,
    ) -> None:  # fmt: skip
        """Append the record for `images` vectors, `x_batch` apart. `backwards`: the last weights first."""
        draft.emit(
            self.kind, images=images, x=x, x_batch=x_batch, out=out, out_batch=out_batch, residual=residual,
            residual_batch=residual_batch, backwards=int(backwards), **self.fields,
        )  # fmt: skip


def product(draft: Draft, attrs: Mapping[str, Any]) -> Product:
    """The product with the matrix that `attrs` name, of float32 vectors without gaps."""
    if attrs["choice"]["encoding"] == "spans":
        return _spans(draft, attrs)
    op = Op("gemm", attrs["encoding"], (), (), attrs)
    k = attrs["matrix"][1]
    narrow = 0 < k <= 1 << 16
    _, fields = groups.row_groups(draft, op, np.arange(k), narrow=narrow)
    return Product("gemv", {**fields, "row_stride": 1, "narrow": int(narrow), **layer.held_fields(draft, op)})


def _spans(draft: Draft, attrs: Mapping[str, Any]) -> Product:
    prefix = attrs["encoding"]
    sections = draft.program.constants[f"{prefix}.sections"]
    fields: dict[str, Any] = {name: draft.constant(f"{prefix}.{name}") for name in spans.ARRAYS}
    draft.need_scratch(int(np.diff(sections).max(initial=0)) + 2 * LINE)
    op = Op("gemm", prefix, (), (), attrs)
    fields |= {"n_sections": len(sections) - 1, "rows": attrs["matrix"][0], "bias": draft.constant(attrs.get("bias"))}
    return Product(
        "spans", {**fields, "scale": NOWHERE, **activation_fields(draft, op), **layer.held_fields(draft, op)}
    )


def gemm(draft: Draft, op: Op) -> None:
    """x[..., k] by a constant matrix, one vector of inputs after another; kernels may read a span beyond them."""
    if op.attrs["choice"]["encoding"] != "spans":
        layer.gemm(draft, op)
        return
    x, out, (o, k) = draft.layout(op.inputs[0]), draft.layout(op.outputs[0]), op.attrs["matrix"]
    images = int(np.prod(x.shape)) // k
    base = as_contiguous(draft, op.inputs[0])
    if draft.place(op.inputs[0])[0] in draft.program.inputs and x.contiguous:
        base = draft.temporary(images * k)
        copy(draft, base, c_strides(x.shape), draft.at(op.inputs[0]), x.strides, x.shape)
    residual = as_contiguous(draft, op.inputs[1]) if len(op.inputs) > 1 else NOWHERE
    target = draft.at(op.outputs[0]) if out.contiguous else draft.temporary(images * o)
    product(draft, op.attrs).emit(draft, images, base, k, target, o, residual, o)
    if not out.contiguous:  # as in `layer`
        clear_padding(draft, op.outputs[0])
        copy(draft, draft.at(op.outputs[0]), out.strides, target, c_strides(out.shape), out.shape)
