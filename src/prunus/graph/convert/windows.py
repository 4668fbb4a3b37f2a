"""Converters of pooling and resizing, and what operators with windows share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.graph.ir import Node
from prunus.graph.onnx_node import OnnxNode
from prunus.sparsity.refusal import Refusal


def spatial_pads(
    n: OnnxNode, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """(top, left, bottom, right) from `pads` or `auto_pad`."""
    half = len(kernel)
    pads = list(n.attr("pads", [0] * (2 * half)))
    mode = n.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((-(-i // s) - 1) * s + (k - 1) * d + 1 - i, 0)
            for i, k, s, d in zip(size, kernel, strides, dilations, strict=True)
        ]
        before = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
        pads = before + [t - b for t, b in zip(total, before, strict=True)]
    elif mode == "VALID":
        pads = [0] * (2 * half)
    lead = [0] * (2 - half)
    return (*lead, *pads[:half], *lead, *pads[half:])


def reshaped(n: OnnxNode, op: str, attrs: dict[str, Any]) -> list[Node]:
    """The node; around one spatial axis, reshapes to two and back."""
    shape, out = n.shape(), n.out_shape
    if len(shape) == 4:
        return n.node(op, (n.input(),), **attrs)
    wide = n.conversion.value(f"{n.output}.in", (*shape[:2], 1, *shape[2:]))
    tall = n.conversion.value(f"{n.output}.out", (*out[:2], 1, *out[2:]))
    return [
        Node("reshape", f"{n.name}.in", (n.input(),), (wide,), {"shape": (*shape[:2], 1, *shape[2:])}),
        Node(op, n.name, (wide,), (tall,), attrs),
        Node("reshape", f"{n.name}.out", (tall,), (n.output,), {"shape": tuple(out)}),
    ]


def max_pool(n: OnnxNode) -> list[Node] | Refusal:
    """MaxPool without indices."""
    if len(n.outputs) > 1 and n.outputs[1].name:
        return Refusal("indices as an output")
    found = _window(n)
    if isinstance(found, Refusal):
        return found
    return reshaped(n, "max_pool", found)


def avg_pool(n: OnnxNode) -> list[Node] | Refusal:
    """AveragePool."""
    found = _window(n)
    if isinstance(found, Refusal):
        return found
    if found.pop("dilations") != (1, 1):
        return Refusal("dilated average")
    found["count_include_pad"] = bool(n.attr("count_include_pad", 0))
    if found["count_include_pad"] and n.attr("ceil_mode", 0):
        return Refusal("count_include_pad with ceil_mode")
    return reshaped(n, "avg_pool", found)


def _window(n: OnnxNode) -> dict[str, Any] | Refusal:
    """Kernel, strides, pads and dilations; with ceil_mode the pads at the end grow to what the output's size says."""
    kernel = [int(k) for k in n.attr("kernel_shape")]
    if len(kernel) not in (1, 2):
        return Refusal(f"{len(kernel)} spatial axes")
    strides = n.attr("strides", [1] * len(kernel))
    dilations = n.attr("dilations", [1] * len(kernel))
    size, out = n.shape()[2:], n.out_shape[2:]
    pads = list(spatial_pads(n, size, kernel, strides, dilations))
    lead = 2 - len(kernel)
    for axis, (i, o, k, s, d) in enumerate(zip(size, out, kernel, strides, dilations, strict=True), lead):
        pads[axis + 2] = max(pads[axis + 2], (o - 1) * s + (k - 1) * d + 1 - i - pads[axis])
    ones = [1] * lead
    return {
        "kernel": (*ones, *kernel), "strides": (*ones, *strides), "pads": tuple(pads), "dilations": (*ones, *dilations),
    }  # fmt: skip


def global_pool(op: str) -> Any:
    """Converter of GlobalAveragePool or GlobalMaxPool."""

    def convert(n: OnnxNode) -> list[Node] | Refusal:
        if len(n.shape()) != 4:
            return Refusal(f"rank {len(n.shape())}")
        return n.node(op, (n.input(),))

    return convert


COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def resize(n: OnnxNode) -> list[Node] | Refusal:
    """Resize and Upsample of rows and columns."""
    shape, out = n.shape(), n.out_shape
    if len(shape) != 4 or shape[:2] != out[:2]:
        return Refusal("other axes than the last two of four")
    mode = n.attr("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return Refusal(f"mode {mode}")
    if n.attr("antialias", 0) or n.attr("axes") or n.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Refusal("antialias, axes or keep_aspect_ratio_policy")
    old = n.op == "Upsample" or n.opset < 11
    coordinates = "asymmetric" if old else n.attr("coordinate_transformation_mode", "half_pixel")
    if coordinates not in COORDINATES:
        return Refusal(f"coordinates {coordinates}")
    place = 1 if old else 2
    scales = n.attr("scales") or (n.const(place).tolist() if n.const(place) is not None else [])  # type: ignore[union-attr]
    if len(scales) != 4:
        scales = [o / i for i, o in zip(shape, out, strict=True)]
    return n.node(
        "resize", (n.input(),), mode=mode, coordinates=coordinates,
        nearest_mode="floor" if old else n.attr("nearest_mode", "round_prefer_floor"),
        scales=tuple(float(s) for s in np.asarray(scales)[2:]),
    )  # fmt: skip
