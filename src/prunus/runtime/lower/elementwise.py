"""Element-wise operators, soft maximum and means: records over strided axes."""

import numpy as np

from prunus.runtime.layout import Shape, c_strides
from prunus.runtime.lower.context import (
    Address,
    Draft,
    activation_fields,
    axes,
    clear_padding,
    copy,
    strided,
)
from prunus.runtime.program import Op
from prunus.runtime.records import FUNCTIONS, NOWHERE


def activation(draft: Draft, op: Op) -> None:
    """An activation that no epilogue took in."""
    _map(draft, op, NOWHERE, NOWHERE)


def scale_shift(draft: Draft, op: Op) -> None:
    """x * scale + shift per channel."""
    _map(draft, op, draft.constant(op.attrs["scale"]), draft.constant(op.attrs["shift"]))


def identity(draft: Draft, op: Op) -> None:
    """A copy, unless the output lies where the input does."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    if draft.place(op.inputs[0]) == draft.place(op.outputs[0]):
        return
    clear_padding(draft, op.outputs[0])
    copy(draft, draft.at(op.outputs[0]), out.strides, draft.at(op.inputs[0]), x.strides, x.shape)


def _map(draft: Draft, op: Op, scale: int, shift: int) -> None:
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    draft.emit(
        "map", out=draft.at(op.outputs[0]), x=draft.at(op.inputs[0]), scale=scale, shift=shift,
        **activation_fields(draft, op), **strided("size", x.shape, x.shape),
        **strided("out_stride", out.shape, out.strides), **strided("in_stride", x.shape, x.strides),
    )  # fmt: skip


def broadcast(shape: Shape, strides: Shape, target: Shape) -> Shape:
    """Strides of a tensor read as if it had the target's shape: 0 along broadcast axes."""
    lead = len(target) - len(shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True))


def binary(draft: Draft, op: Op) -> None:
    """Two tensors, or a tensor and a constant, with broadcasting."""
    out = draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    sides: list[tuple[Address, Shape]] = [
        (draft.at(name), broadcast(draft.layout(name).shape, draft.layout(name).strides, out.shape))
        for name in op.inputs
    ]
    if (constant := op.attrs.get("constant")) is not None:
        shape = draft.program.constants[constant].shape
        side = (draft.constant(constant), broadcast(shape, c_strides(shape), out.shape))
        sides.insert(0 if op.attrs["constant_first"] else 1, side)
    (x, x_strides), (other, other_strides) = sides
    fields = activation_fields(draft, op)
    del fields["slope"]
    draft.emit(
        "binary", function=FUNCTIONS[op.attrs["function"]], out=draft.at(op.outputs[0]), x=x, other=other, **fields,
        **strided("size", out.shape, out.shape), **strided("out_stride", out.shape, out.strides),
        **strided("in_stride", out.shape, x_strides), **strided("other_stride", out.shape, other_strides),
    )  # fmt: skip


def softmax(draft: Draft, op: Op) -> None:
    """Soft maximum, or its logarithm, along one axis."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    axis = op.attrs["axis"] % len(x.shape)
    rest = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    draft.emit(
        "softmax", log=int(op.attrs["log"]), out=draft.at(op.outputs[0]), x=draft.at(op.inputs[0]),
        length=x.shape[axis], out_step=out.strides[axis], x_step=x.strides[axis], **strided("size", rest, rest),
        **strided("out_stride", rest, out.strides), **strided("in_stride", rest, x.strides),
    )  # fmt: skip


def reduce_mean(draft: Draft, op: Op) -> None:
    """Mean over some axes."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    clear_padding(draft, op.outputs[0])
    reduced = {axis % len(x.shape) for axis in op.attrs["axes"]}
    rest = tuple(1 if i in reduced else n for i, n in enumerate(x.shape))
    inner = tuple(n if i in reduced else 1 for i, n in enumerate(x.shape))
    strides = iter(out.strides)
    if op.attrs["keepdims"]:
        out_strides = out.strides
    else:
        out_strides = tuple(0 if i in reduced else next(strides) for i in range(len(x.shape)))
    places = axes(x.shape)
    order = np.argsort(places)
    draft.emit(
        "reduce_mean", out=draft.at(op.outputs[0]), x=draft.at(op.inputs[0]), **strided("size", rest, rest),
        **strided("out_stride", rest, out_strides), **strided("in_stride", rest, x.strides),
        **{f"reduced{places[i]}": inner[i] for i in order},
        **{f"reduced_stride{places[i]}": x.strides[i] for i in order},
    )  # fmt: skip
