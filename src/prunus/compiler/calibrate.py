"""Formats of int8 activations from a few batches: what range each value takes, and which part of it is worth keeping.

min-max keeps all; percentile leaves out the rarest values at both ends; mse takes the range in which rounding and
clipping together err least, summed over a histogram. Ranges contain 0, so that padding and zeros are exact.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.precision import FOLLOWERS, why_not
from prunus.compiler.translate import translate
from prunus.compiler.tune import Tuner
from prunus.errors import CalibrationError, FeedError
from prunus.graph.ir import Format, Graph
from prunus.kernels.isa import Isa
from prunus.runtime.artefact import pack
from prunus.runtime.session import Session

METHODS = ("min-max", "percentile", "mse")
BINS = 2048
KEPT = 0.9999  # of the values, by percentile
STEPS = 256
CLIPS = np.linspace(0.3, 1.0, 71)  # parts of the range that mse tries

Floats = NDArray[np.float32]
Feeds = Mapping[str, NDArray[Any]]
Range = tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Formats of values, and float32[c], the mean of each of their channels."""

    formats: Mapping[str, Format]
    means: Mapping[str, Floats] = field(default_factory=dict)


def calibrate(graph: Graph, batches: Iterable[Feeds], method: str, isa: Isa, code: bytes, threads: int) -> Calibration:
    """What int8 layers need to know of every value that they read or make. `graph` has spelled-out nodes.

    Raises CalibrationError: no batches, or values that aren't finite. FeedError: an input doesn't fit the network.
    """
    assert method in METHODS
    names = observed(graph)
    watched = replace(graph, outputs=tuple(names))
    tuner = Tuner(isa, threads, "off", None, lambda _: "")
    program, constants = pack(translate(watched, isa, tuner.decide))
    session = Session(program, code, constants, threads)
    singles = list(checked(graph, batches))
    if not singles:
        raise CalibrationError("calibration: no batches; int8 needs a few of real inputs")
    ranges: dict[str, Range] = dict.fromkeys(names, (0.0, 0.0))
    sums: dict[str, NDArray[Any]] = {name: np.zeros(graph.values[name].shape[1]) for name in names}
    for feeds in singles:
        for name, array in zip(names, session.run(None, feeds), strict=True):
            low, high = float(array.min()), float(array.max())
            if not np.isfinite((low, high)).all():
                raise CalibrationError(f"calibration: {name} takes values that aren't finite")
            ranges[name] = (min(ranges[name][0], low), max(ranges[name][1], high))
            sums[name] += array.mean(axis=tuple(i for i in range(array.ndim) if i != 1), dtype=np.float64)
    if method != "min-max":
        counts = {name: np.zeros(BINS) for name in names}
        for feeds in singles:
            for name, array in zip(names, session.run(None, feeds), strict=True):
                counts[name] += np.histogram(
                    array, BINS, ranges[name] if ranges[name][1] > ranges[name][0] else (0, 1)
                )[0]
        narrow = _percentile if method == "percentile" else _least_error
        ranges = {name: narrow(ranges[name], counts[name]) for name in names}
    means = {name: (total / len(singles)).astype(np.float32) for name, total in sums.items()}
    return Calibration(joined(graph, {name: form_of(*ranges[name]) for name in names}), means)


def observed(graph: Graph) -> list[str]:
    """Values that layers over packed channels read and make, and what stays packed between them."""
    names: dict[str, None] = {}
    for node in graph.nodes:
        if (node.op in ("conv", "gemm") and why_not(node, graph, 4) is None) or node.op in FOLLOWERS:
            names |= dict.fromkeys((*node.inputs, *node.outputs))
    return [name for name in names if graph.values[name].dtype == "float32" and len(graph.values[name].shape) in (2, 4)]


def form_of(low: float, high: float) -> Format:
    """uint8 over a range that is widened to contain 0, which is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Format(4)
    zero = int(np.clip(round(-low * (STEPS - 1) / (high - low)), low < 0, STEPS - 1 - (high > 0)))
    scale = max(-low / max(zero, 1), high / max(STEPS - 1 - zero, 1))  # both ends are reached, one of them exactly
    return Format(4, float(np.float32(scale)), zero)


def range_of(form: Format) -> Range:
    """The smallest and largest number of a format."""
    return -form.zero * form.scale, (STEPS - 1 - form.zero) * form.scale


def joined(graph: Graph, formats: Mapping[str, Format]) -> dict[str, Format]:
    """One format for values that are only moved or compared, from what any of them has: the union of their ranges."""
    parent = {name: name for name in graph.values}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        if node.op in FOLLOWERS:
            for name in (*node.inputs, *node.outputs):
                parent[root(name)] = root(node.outputs[0])
    groups: dict[str, list[str]] = {}
    for name in graph.values:
        groups.setdefault(root(name), []).append(name)
    made: dict[str, Format] = {}
    for members in groups.values():
        known = {formats[name] for name in members if name in formats}
        if not known:
            continue
        lows, highs = zip(*(range_of(form) for form in known), strict=True)
        form = known.pop() if len(known) == 1 else form_of(min(lows), max(highs))
        made |= dict.fromkeys(members, form)
    return made


def checked(graph: Graph, batches: Iterable[Feeds]) -> Iterable[dict[str, NDArray[Any]]]:
    """The batches, cut into single ones where the network's batch size is fixed.

    Raises CalibrationError: not finite. FeedError: not feeds, or of another shape than the network's.
    """
    for number, batch in enumerate(batches):
        where = f"calibration batch {number}"
        if not isinstance(batch, Mapping):
            raise FeedError(f"{where}: expected a mapping of input names to arrays, found {type(batch).__name__}")
        arrays = {name: np.asarray(array) for name, array in batch.items()}
        if set(arrays) != set(graph.inputs):
            raise FeedError(f"{where}: inputs {sorted(arrays)}, the network has {', '.join(graph.inputs)}")
        for name, array in arrays.items():
            shape = graph.values[name].shape
            if array.dtype != graph.values[name].dtype:
                raise FeedError(f"{where}: input {name!r}: dtype {array.dtype}, expected {graph.values[name].dtype}")
            if array.ndim != len(shape) or array.shape[1:] != shape[1:] or len(array) % shape[0] or not len(array):
                expected = [f"a multiple of {shape[0]}", *shape[1:]]
                raise FeedError(f"{where}: input {name!r}: shape {list(array.shape)}, expected {expected}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CalibrationError(f"{where}: input {name!r} has NaN or infinity")
        sizes = {len(array) // graph.values[name].shape[0] for name, array in arrays.items()}
        if len(sizes) > 1:
            raise FeedError(f"{where}: inputs of different batch sizes: {sorted(sizes)}")
        for i in range(1 if graph.batch else max(sizes)):
            yield (
                arrays
                if graph.batch
                else {
                    name: array[i * graph.values[name].shape[0] : (i + 1) * graph.values[name].shape[0]]
                    for name, array in arrays.items()
                }
            )


def _percentile(whole: Range, counts: NDArray[np.float64]) -> Range:
    """The range without the rarest values: (1 - KEPT) / 2 of them at each end that isn't 0."""
    total = np.cumsum(counts)
    edges = np.linspace(*whole, BINS + 1)
    rare = (1 - KEPT) / 2 * total[-1]
    low = edges[np.searchsorted(total, rare, side="right")] if whole[0] < 0 else 0.0
    high = edges[np.searchsorted(total, total[-1] - rare) + 1] if whole[1] > 0 else 0.0
    return float(low), float(high)


def _least_error(whole: Range, counts: NDArray[np.float64]) -> Range:
    """The part of the range with the least summed square error of rounding and clipping."""
    edges = np.linspace(*whole, BINS + 1)
    centres, present = (edges[1:] + edges[:-1]) / 2, counts > 0
    centres, weight = centres[present], counts[present]
    best, least = whole, np.inf
    for part in CLIPS[::-1]:
        low, high = whole[0] * part, whole[1] * part
        form = form_of(low, high)
        near = (np.clip(np.rint(centres / form.scale + form.zero), 0, STEPS - 1) - form.zero) * form.scale
        error = float(((near - centres) ** 2 * weight).sum())
        if error < least:
            best, least = (low, high), error
    return best
