"""One-shot pruning of an ONNX file without data: the weights of least norm go, by scheme and sparsity.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
arXiv:1506.02626, section 3, for magnitude as the criterion; the groups are the scheme's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import onnx
from onnx import ModelProto

from prunus.graph.load import load_model
from prunus.pruning.onnx_weights import (
    FLOATS,
    LAYERS,
    SLOTS,
    Weight,
    graphs,
    group,
    layer_name,
    read,
    uses,
    weights,
    write,
)
from prunus.pruning.selection import select
from prunus.sparsity.check import fits
from prunus.sparsity.project import TOLERANCE, project, resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse

SAME_MATRIX = 1  # dimensions below which a weight is no matrix


@final
@dataclass(frozen=True)
class LayerReport:
    """What became of one weight: its shape as filters first, and the fraction of zeros that it has now.

    scheme: None where it was left as it was, `note` then says why. Else `note` says what is out of the ordinary.
    """

    name: str
    weight: str
    shape: tuple[int, ...]
    scheme: Scheme | None
    sparsity: float
    note: str = ""


@final
@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned model, and one report per weight of each of its layers, pruned or not.

    sparsity: fraction of zeros over all weights that were pruned.
    """

    model: ModelProto
    layers: tuple[LayerReport, ...]
    sparsity: float


def prune_onnx(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme,
    sparsity: float | None = None,
    ignore: Sequence[str] = (),
    *,
    report: Callable[[LayerReport], None] | None = None,
) -> ModelProto:
    """A copy of `model` with exact zeros by `scheme`: see `prune_layers`, whose model this is."""
    return prune_layers(model, scheme, sparsity, ignore, report=report).model


def prune_layers(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme,
    sparsity: float | None = None,
    ignore: Sequence[str] = (),
    *,
    report: Callable[[LayerReport], None] | None = None,
) -> PruneResult:
    """Prune every ungrouped Conv, Gemm, MatMul with a constant matrix, GRU and LSTM that is not ignored.

    model: path, bytes, or a ModelProto, which stays as it is. sparsity: fraction of zeros of each weight; n:m says its
    own. ignore: names of nodes or initialisers, or `re:` and a pattern. report: called with each layer when done.

    A weight that several layers share is pruned once; one that something else reads too is copied first, so that the
    other reader keeps what it had. Layers that the scheme doesn't fit stay dense, and their report says why.
    `metadata_props` of the result has prunus.scheme, prunus.sparsity, and prunus.layers (JSON by weight).
    Raises ModelError: unreadable, or weights that aren't finite. SchemeError: no such scheme or sparsity. RuleError: an
    entry of `ignore` that matches no layer.
    """
    scheme = parse(scheme)
    target = resolve_sparsity(scheme, sparsity)
    pruned = ModelProto()
    pruned.CopyFrom(load_model(model))
    found = list(weights(pruned))
    ignored = _ignored(pruned, found, ignore)
    reads = uses(pruned)
    reports: list[LayerReport] = []
    zeros = total = 0
    for weight, others in _by_tensor(found):
        left = [other for other in (weight, *others) if id(other.node) in ignored]
        left += [other for other in (weight, *others) if weight.name in ignored and other not in left]
        layer = _prune(pruned, weight, others, left, reads[weight.name], scheme, target)
        reports.append(layer)
        if layer.scheme is not None:
            size = int(np.prod(layer.shape))
            total += size
            zeros += round(layer.sparsity * size)
        if report is not None:
            report(layer)
    overall = zeros / total if total else 0.0
    _write_metadata(pruned, scheme, overall, reports)
    return PruneResult(pruned, tuple(reports), overall)
