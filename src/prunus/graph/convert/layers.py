"""Converters of operators with weights."""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from prunus.errors import ModelError
from prunus.graph.convert.windows import reshaped, spatial_pads
from prunus.graph.ir import Node
from prunus.graph.onnx_node import OnnxNode
from prunus.sparsity.refusal import Refusal

EPILOGUE = {"bias": None, "activation": None, "slope": None}


def conv(n: OnnxNode) -> list[Node] | Refusal:
    """Conv of one or two spatial axes."""
    weight = n.const(1)
    if weight is None:
        return Refusal("the weight isn't constant")
    if weight.ndim not in (3, 4):
        return Refusal(f"{weight.ndim - 2} spatial axes")
    bias = n.const(2)
    if n.given(2) and bias is None:
        return Refusal("the bias isn't constant")
    kernel, group = weight.shape[2:], int(n.attr("group", 1))
    if len(n.shape()) != weight.ndim or n.shape()[1] != weight.shape[1] * group or weight.shape[0] % group:
        _contradiction(n, weight, f"group {group}")
    _check_bias(n, bias, len(weight))
    strides, dilations = n.attr("strides", [1] * len(kernel)), n.attr("dilations", [1] * len(kernel))
    pads = spatial_pads(n, n.shape()[2:], kernel, strides, dilations)
    attrs = {
        "weight": n.conversion.constant(f"{n.input(1)}", weight.reshape(*weight.shape[:2], *_two(kernel))),
        "strides": _two(strides), "pads": pads, "dilations": _two(dilations), "group": group,
        **EPILOGUE, "bias": None if bias is None else n.conversion.constant(n.input(2), bias),
    }  # fmt: skip
    return reshaped(n, "conv", attrs)


def conv_transpose(n: OnnxNode) -> list[Node] | Refusal:
    """ConvTranspose of one or two spatial axes."""
    weight = n.const(1)
    if weight is None:
        return Refusal("the weight isn't constant")
    if weight.ndim not in (3, 4):
        return Refusal(f"{weight.ndim - 2} spatial axes")
    bias = n.const(2)
    if n.given(2) and bias is None:
        return Refusal("the bias isn't constant")
    group = int(n.attr("group", 1))
    if len(n.shape()) != weight.ndim or n.shape()[1] != weight.shape[0] or weight.shape[0] % group:
        _contradiction(n, weight, f"group {group}")
    _check_bias(n, bias, weight.shape[1] * group)
    kernel, size, out = weight.shape[2:], n.shape()[2:], n.out_shape[2:]
    strides, dilations = n.attr("strides", [1] * len(kernel)), n.attr("dilations", [1] * len(kernel))
    extra = n.attr("output_padding", [0] * len(kernel))
    # what the output lacks of the full size is cut: by pads as given, else half before (SAME_UPPER) or after
    full = [
        (i - 1) * s + (k - 1) * d + 1 + e for i, s, k, d, e in zip(size, strides, kernel, dilations, extra, strict=True)
    ]
    pads = list(n.attr("pads", [0] * (2 * len(kernel))))
    if n.attr("output_shape") or n.attr("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        total = [f - o for f, o in zip(full, out, strict=True)]
        upper = n.attr("auto_pad", "NOTSET") == "SAME_UPPER"
        before = [t // 2 if upper else t - t // 2 for t in total]
        pads = before + [t - b for t, b in zip(total, before, strict=True)]
    half = len(kernel)
    lead = [0] * (2 - half)
    attrs = {
        "weight": n.conversion.constant(n.input(1), weight.reshape(*weight.shape[:2], *_two(kernel))),
        "strides": _two(strides), "pads": (*lead, *pads[:half], *lead, *pads[half:]), "output_pads": _two(extra, 0),
        "dilations": _two(dilations), "group": group, **EPILOGUE,
        "bias": None if bias is None else n.conversion.constant(n.input(2), bias),
    }  # fmt: skip
    return reshaped(n, "conv_transpose", attrs)


def gemm(n: OnnxNode) -> list[Node] | Refusal:
    """Gemm of a rank-2 input by a constant matrix."""
    matrix, bias = n.const(1), n.const(2)
    if matrix is None or n.const(0) is not None:
        return Refusal("the second matrix isn't constant")
    if n.attr("transA", 0):
        return Refusal("transA")
    if n.given(2) and bias is None:
        return Refusal("the bias isn't constant")
    weight = (matrix if n.attr("transB", 0) else matrix.T) * np.float32(n.attr("alpha", 1.0))
    if len(n.shape()) != 2 or matrix.ndim != 2 or weight.shape[1] != n.shape()[1]:
        _contradiction(n, matrix, f"transB {n.attr('transB', 0)}")
    attrs = {"weight": n.conversion.constant(n.input(1), weight), **EPILOGUE}
    if bias is not None:
        if bias.ndim == 2 and bias.shape[0] != 1:
            return Refusal("a bias per row of the input")
        if bias.size not in (1, len(weight)):
            _check_bias(n, bias, len(weight))
        flat = np.broadcast_to(bias.ravel() * np.float32(n.attr("beta", 1.0)), (len(weight),))
        attrs["bias"] = n.conversion.constant(n.input(2), flat)
    return n.node("gemm", (n.input(0),), **attrs)


def matmul(n: OnnxNode) -> list[Node] | Refusal:
    """MatMul by a constant matrix of rank 2 on the right."""
    matrix = n.const(1)
    if matrix is None or matrix.ndim != 2:
        return Refusal("the second matrix isn't a constant of rank 2")
    if len(n.shape()) < 2:
        return Refusal("the first input is a vector")
    if n.shape()[-1] != len(matrix):
        _contradiction(n, matrix, "a product of them")
    return n.node("gemm", (n.input(0),), weight=n.conversion.constant(n.input(1), matrix.T), **EPILOGUE)


def _contradiction(n: OnnxNode, weight: NDArray[Any], what: str) -> NoReturn:
    raise ModelError(
        f"node {n.name!r}: {n.op} of input {list(n.shape())} and weight {list(weight.shape)} "
        f"with {what} contradict each other"
    )


def _check_bias(n: OnnxNode, bias: NDArray[Any] | None, expected: int) -> None:
    if bias is not None and bias.size != expected:
        raise ModelError(f"node {n.name!r}: {n.op} has a bias of {bias.size} values, expected {expected}")


def _two(values: object, missing: int = 1) -> tuple[int, ...]:
    """Values of the last two axes; a single axis is the last one."""
    numbers = tuple(int(v) for v in values)  # type: ignore[attr-defined]
    return (missing, *numbers) if len(numbers) == 1 else numbers
