"""What pruning a layer does to a network, without training: -log of the share of its weights' energy that stays.

With inputs that aren't correlated, the share of the weights' squared norm that is pruned is the layer's relative
squared output error, and what stays is signal: over layers in a row shares multiply, so their logarithms add up, and a
layer that all but vanishes costs without bound. How much of an error reaches the outputs differs by layer; with
calibration data that is measured, by pruning each layer alone once, and used as a factor, the gain, else 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from prunus.compiler.calibrate import checked
from prunus.errors import CalibrationError
from prunus.mapping.network import Network, Site
from prunus.mapping.table import can_take
from prunus.pruning.one_shot import prune_by_rules
from prunus.pruning.onnx_weights import n_stacked, read
from prunus.sparsity.scheme import Scheme, parse
from prunus.sparsity.stacked import project_stacked

REFERENCE = parse("unstructured"), 0.8  # as which each layer is pruned once, to measure its gain
LEAST_KEPT = 1e-6  # of energy: an empty layer costs a finite amount
DIGITS = 7  # of a loss: enough to compare, few enough to be the same again


def energy_lost(site: Site, scheme: Scheme, sparsity: float) -> float:
    """The share of the squared norm of a layer's weights that one-shot pruning takes away, from 0 to 1."""
    lost = whole = 0.0
    for weight in site.weights:
        array = read(weight).astype(np.float32)
        kept = project_stacked(array, scheme, sparsity, n_stacked(weight))
        squares = np.square(array, dtype=np.float64)
        whole += float(squares.sum())
        lost += float(squares[~kept].sum())
    return lost / whole if whole else 0.0


def loss(site: Site, scheme: Scheme, sparsity: float, gains: Mapping[str, float]) -> float:
    """Of pruning the layer alone: 0 where nothing goes; near the relative squared error where that is small."""
    return round(gains.get(site.name, 1.0) * fading(energy_lost(site, scheme, sparsity)), DIGITS)


def fading(lost: float) -> float:
    """-log of the energy that stays."""
    return -math.log(max(1 - lost, LEAST_KEPT))


def measure_gains(
    network: Network, feeds: Sequence[Mapping[str, Any]], progress: Callable[[str], None] | None = None
) -> dict[str, float]:
    """By layer: -log of what stays of the network's outputs, over that of what stays of the layer's energy.

    Raises CalibrationError: no feeds, or outputs that are all zero. FeedError: not for this network.
    """
    feeds = list(checked(network.graph, feeds))
    if not feeds:
        raise CalibrationError("calibration: no batches; sensitivities need a few real inputs")
    expected = _outputs(network.model, feeds)
    norm = sum(float(np.square(value, dtype=np.float64).sum()) for value in expected)
    if not norm:
        raise CalibrationError("calibration: the network answers zeros only, sensitivities can't be told")
    gains = {}
    scheme, sparsity = REFERENCE
    for site in network.sites:
        if not can_take(site, scheme):
            continue
        if progress:
            progress(f"sensitivity of {site.name}")
        faded = fading(energy_lost(site, scheme, sparsity))
        found = _outputs(prune_by_rules(network.model, [(layer, REFERENCE) for layer in site.layers]).model, feeds)
        error = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(found, expected, strict=True))
        gains[site.name] = float(f"{fading(min(error / norm, 1.0)) / faded:.4g}") if faded else 0.0
    return gains


def _outputs(model: ModelProto, feeds: Sequence[Mapping[str, Any]]) -> list[NDArray[Any]]:
    """All float outputs of the model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return [value for feed in feeds for value in session.run(None, dict(feed)) if value.dtype.kind == "f"]
