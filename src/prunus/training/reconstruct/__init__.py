"""Pruning without a training set: `reconstruct` for torch networks, `reconstruct_onnx` for ONNX files."""

from prunus.training.reconstruct.network import Options, reconstruct
from prunus.training.reconstruct.onnx_file import reconstruct_onnx

__all__ = ["Options", "reconstruct", "reconstruct_onnx"]
