"""Networks of the zoo with zeros, and in QDQ form for the int8 peers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import prunus
from bench.zoo import ZOO
from prunus.runtime.cpu import describe

CALIBRATION = 8  # random inputs; the weights are random, so images would say no more


def sparse(network: str, scheme: str | None, sparsity: float | None, **options: Any) -> onnx.ModelProto:
    """A zoo network, pruned but for its first convolution; `options` go to the builder. No scheme: dense.

    Pruned weights are scaled to the norm that they had: activations would fade from layer to layer, and outputs that
    don't depend on the input agree whatever is computed.
    """
    model = ZOO[network](**options)
    if scheme is None:
        return model
    norms = {t.name: float(np.linalg.norm(onnx.numpy_helper.to_array(t))) for t in model.graph.initializer}
    model = prunus.prune_onnx(model, scheme=scheme, sparsity=sparsity, ignore=[model.graph.node[0].name])
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        norm = float(np.linalg.norm(array))
        if len(tensor.dims) > 1 and norm:
            scaled = array * np.float32(norms[tensor.name] / norm)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, tensor.name))
    return model


def feeds(model: onnx.ModelProto, seed: int) -> dict[str, Any]:
    """A normal random input."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(seed).standard_normal(shape, np.float32)}


def calibration(model: onnx.ModelProto) -> list[dict[str, Any]]:
    return [feeds(model, 100 + i) for i in range(CALIBRATION)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches: Iterator[dict[str, Any]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def quantise(source: Path, made: Path) -> None:
    """Write the QDQ form of an ONNX file by onnxruntime's static quantisation: weights int8 per channel, activations
    uint8. Without VNNI weights get 7 bits, as onnxruntime advises, for AVX2's products of bytes saturate.
    """
    vnni = any(feature in describe().features for feature in ("avx512_vnni", "avx_vnni"))
    quantize_static(
        str(source), str(made), _Reader(calibration(onnx.load(source))), quant_format=QuantFormat.QDQ,
        per_channel=True, reduce_range=not vnni, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
