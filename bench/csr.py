"""The baseline of the papers: each pruned layer as CSR times dense, where im2col is done beforehand and not counted.

scipy's product, and MKL's through torch.sparse_csr where torch is installed; the faster one of the two stands.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]
LEAST_SPARSITY = 0.5


@dataclass(frozen=True, eq=False)
class Layer:
    """A pruned layer as a matrix product: weights float32[o, k] with zeros, and how many columns (pixels) x has."""

    name: str
    weights: Array
    columns: int


def pruned_layers(model: onnx.ModelProto) -> list[Layer]:
    """The ungrouped Conv and Gemm layers (transB 1) of which more than half of the weights are zeros, at batch 1."""
    constants = {t.name: t for t in model.graph.initializer}
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in constants:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("group", 1) != 1 or (node.op_type == "Gemm" and not attributes.get("transB", 0)):
            continue
        weights = onnx.numpy_helper.to_array(constants[node.input[1]])
        if np.count_nonzero(weights) < weights.size * (1 - LEAST_SPARSITY):
            columns = int(np.prod(shapes[node.output[0]][2:], dtype=np.int64))
            found.append(Layer(node.name, weights.reshape(len(weights), -1), columns))
    return found


def im2col(x: Array, kernel: tuple[int, int], stride: int = 1, pad: int = 0) -> Array:
    """float32[i, h, w] to float32[i * kh * kw, pixels of the output]: row (i, kh, kw) as weights are flattened."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, (1, 2))[:, ::stride, ::stride]
    i, h, w, kh, kw = windows.shape
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 1, 2)).reshape(i * kh * kw, h * w)


def products(weights: Array, threads: int) -> dict[str, Callable[[Array], Array]]:
    """By library: a function from float32[k, n] to weights times it. Threads are of MKL; scipy has one."""
    import scipy.sparse

    matrix = scipy.sparse.csr_matrix(weights)
    found: dict[str, Callable[[Array], Array]] = {"scipy": lambda x: matrix @ x}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sparse CSR is in beta
            mkl = torch.from_numpy(weights).to_sparse_csr()
        found["mkl"] = lambda x: torch.mm(mkl, torch.from_numpy(x)).numpy()
    return found


def timers(layers: list[Layer], threads: int) -> dict[str, Callable[[], float]]:
    """By library: a call that computes all layers once and returns the seconds of the products alone."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((layer.weights.shape[1], layer.columns), np.float32) for layer in layers]
    by_layer = [products(layer.weights, threads) for layer in layers]

    def total(library: str) -> float:
        start = time.perf_counter()
        for product, x in zip(by_layer, inputs, strict=True):
            product[library](x)
        return time.perf_counter() - start

    return {library: (lambda library=library: total(library)) for library in (by_layer[0] if by_layer else ())}
