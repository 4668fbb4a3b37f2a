"""Pooling with ceil_mode, for shape inference before opset 22: it counts windows that start beyond the image.

No engine has such windows. They are taken away by writing ceil_mode as the padding that it amounts to.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from prunus.errors import UnsupportedError

POOLS = ("MaxPool", "AveragePool", "LpPool")
FIRST_RIGHT = 22


def drop_windows_beyond(model: ir.Model) -> None:
    """Rewrite pools, in place, whose last window starts where there is only padding.

    Raises UnsupportedError: a mean that counts padding, with such windows on one axis and partial ones on another.
    """
    pools = [n for n in model.graph if n.op_type in POOLS and n.attributes.get_int("ceil_mode")]
    if not pools or model.opset_imports.get("", 1) >= FIRST_RIGHT:
        return
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for node in pools:  # in order: a pool's input is right once those before it are
        if _rewrite(node):
            for later in model.graph:
                for value in later.outputs:
                    value.shape = None
            common.ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _rewrite(node: ir.Node) -> bool:
    source = node.inputs[0]
    shape = None if source is None else source.shape
    if shape is None or not all(isinstance(dim, int) for dim in shape[2:]):
        return False
    size = [int(dim) for dim in shape[2:]]  # type: ignore[arg-type]
    kernel = _ints(node, "kernel_shape", [1] * len(size))
    strides, dilations = (_ints(node, name, [1] * len(size)) for name in ("strides", "dilations"))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID") or len(kernel) != len(size):
        return False
    pads = _ints(node, "pads", [0] * (2 * len(size))) if mode == "NOTSET" else [0] * (2 * len(size))
    beyond, partial, after = False, False, []
    for i, k, s, d, before, end in zip(size, kernel, strides, dilations, pads, pads[len(size) :], strict=False):
        reach = (k - 1) * d + 1
        last = -(-(i + before + end - reach) // s) * s
        missing = last + reach - i - before - end
        if last >= i + before:
            beyond, missing = True, 0
        partial |= missing > 0
        after.append(end + missing)
    if not beyond:
        return False
    if partial and node.attributes.get_int("count_include_pad"):
        raise UnsupportedError(
            f"node {node.name!r}: {node.op_type} with ceil_mode, count_include_pad and windows in padding alone"
        )
    for name in ("ceil_mode", "auto_pad"):
        node.attributes.pop(name, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[: len(size)], *after])
    return True


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return list(node.attributes.get_ints(name, default) or default)
