"""From layers alone to layers in a network: there inputs come from other caches, and a step has its overhead.

Two networks are measured whole, as it is without zeros and as some pruned version: the time of each layer in its place,
and of everything else. Dense layers then count as measured there. Of sparse ones, time in place is taken as an affine
function of time alone, fitted over the pruned network's layers.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np
from onnx import ModelProto

from prunus.compiler.compile import compile as compile_model
from prunus.mapping.network import Network, Site
from prunus.mapping.table import Table, can_take
from prunus.pruning.one_shot import prune_by_rules
from prunus.pruning.onnx_weights import FLOATS, read, weights, write
from prunus.runtime.session import Session
from prunus.sparsity.scheme import Scheme, parse

TIME_S, LEAST_ROUNDS, MOST_ROUNDS = 4.0, 20, 200  # of measuring; the least time of each step counts
BOUNDS = (0.7, 1.6)  # of a layer's time in place over its time alone
ENOUGH = 6  # layers for a line
MOST_RATIO = 4.0  # of a layer that reads weights once
MOST_PACE = 1.1  # a median round over the sum of least times; more is the neighbours' fault
TRIAL = (("punched:8x4", 0.9), ("punched:8x4", 0.7), ("bcr:8x64", 0.8), ("unstructured", 0.9))  # in turns


@final
@dataclass(frozen=True)
class InPlace:
    """dense: milliseconds of each layer in the dense network, by name; other_ms: of the rest of it. slope, offset_ms:
    of a pruned layer's time there over its time alone. pace: what a usual run takes over the sum of least times, which
    all the others are. ratios: in place of slope and offset, by name, of layers whose time is that of reading weights:
    alone those are in a cache."""

    dense: Mapping[str, float]
    other_ms: float
    slope: float = 1.0
    offset_ms: float = 0.0
    pace: float = 1.0
    ratios: Mapping[str, float] = field(default_factory=dict)

    def ms(self, name: str, alone_ms: float) -> float:
        """Of a layer that takes so long alone, pruned."""
        if name in self.ratios:
            return self.pace * self.ratios[name] * alone_ms
        return self.pace * (self.slope * alone_ms + self.offset_ms)

    def dense_ms(self, name: str) -> float:
        """Of a layer as it is."""
        return self.pace * self.dense[name]


def in_place(network: Network, table: Table, progress: Callable[[str], None] | None = None) -> InPlace:
    """Measured now, or before for a network of the same layers."""
    digest = digest_of(network)
    known = None if table.kept is None else table.kept.network(digest)
    if known is not None:
        return InPlace(**known)
    found = _measure(network, table, progress or (lambda _: None))
    if table.kept is not None:
        table.kept.add_network(digest, asdict(found))
    return found


def digest_of(network: Network) -> str:
    """Of everything in a network's graph but its constants' values."""
    graph = network.graph
    shapes = {name: value.shape for name, value in graph.values.items()}
    nodes = [(n.op, n.name, [shapes[v] for v in (*n.inputs, *n.outputs)], sorted(map(repr, n.attrs.items())))
             for n in graph.nodes if n.op != "onnxruntime"]  # fmt: skip
    return hashlib.sha256(repr(nodes).encode()).hexdigest()[:32]


def _measure(network: Network, table: Table, say: Callable[[str], None]) -> InPlace:
    say("the network, dense")
    sessions = [compiled(network, dense_weights(network.model))]
    trial = trial_of(network)
    if trial:
        say("the network, pruned")
        rules = [(layer, trial[site.name]) for site in network.sites if site.name in trial for layer in site.layers]
        pruned = prune_by_rules(network.model, rules, optional=[layer for layer, _ in rules])
        sessions.append(compiled(network, pruned.model))
    least, *sparse = steps_in_turns(sessions)
    dense = {site.name: _of(site, least.ms) for site in network.sites}
    other_ms = sum(least.ms.values()) - sum(dense.values())
    if not sparse:
        return InPlace(dense, other_ms, pace=least.pace)
    ratios, pairs = {}, []
    for site in network.sites:
        if site.name in trial:
            alone, placed = table.time(site, *trial[site.name]).ms, _of(site, sparse[0].ms)
            if site.kernel:
                pairs.append((alone, placed))
            else:
                ratios[site.name] = float(np.clip(placed / alone, 1.0, MOST_RATIO))
    line = fit(np.array(pairs)) if pairs else (1.0, 0.0)
    return InPlace(dense, other_ms, *line, min(least.pace, sparse[0].pace), ratios)


def trial_of(network: Network) -> dict[str, tuple[Scheme, float]]:
    """Schemes and sparsities for the pruned version: different ones in turns, where they fit."""
    open_to = [site for site in network.sites if not site.refusal]
    found = {}
    for i, site in enumerate(open_to):
        text, sparsity = TRIAL[i % len(TRIAL)]
        if can_take(site, parse(text)):
            found[site.name] = (parse(text), sparsity)
    return found


def fit(pairs: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Slope and offset of float64[n, (alone, in place)]: least squares of relative errors, within bounds of sense, then
    scaled so that sums agree: inside of chains it isn't certain which layer took how much."""
    alone, placed = pairs.T
    slope, offset = float(np.clip(np.median(placed / alone), *BOUNDS)), 0.0
    if len(pairs) >= ENOUGH:
        both = np.stack([alone / placed, 1 / placed], axis=1)
        found = np.linalg.lstsq(both, np.ones(len(pairs)), rcond=None)[0]
        if found[1] >= 0 and BOUNDS[0] <= found[0] <= BOUNDS[1]:
            slope, offset = float(found[0]), float(found[1])
    scale = float(np.clip(placed.sum() / (slope * alone + offset).sum(), *BOUNDS))
    return slope * scale, offset * scale


def dense_weights(model: ModelProto) -> ModelProto:
    """The model; where weights that could be pruned hold zeros, small numbers in place of them."""
    made = ModelProto()
    made.CopyFrom(model)
    for weight in weights(made):
        if weight.tensor.data_type in FLOATS:
            array = read(weight)
            if not array.all():
                write(weight, np.where(array == 0, array.dtype.type(1e-3), array), weight.tensor)
    return made


def compiled(network: Network, model: ModelProto) -> Session:
    """A session of another version of the model, as the network is to run."""
    return compile_model(
        model, target=network.isa.target, precision=network.precision, calibration=network.calibration,
        threads=network.threads, input_shapes=network.input_shapes,
    )  # fmt: skip


@final
@dataclass(frozen=True)
class Steps:
    """ms: the least time of each step, by its node's name. pace: how many times their sum a usual round takes."""

    ms: Mapping[str, float]
    pace: float


def steps_in_turns(sessions: Sequence[Session], rounds: int | None = None) -> list[Steps]:
    """Of each session, all of which have their turn in each round. rounds: None for as many as fit into TIME_S."""
    feeds = [_feeds(session) for session in sessions]
    seen: list[list[dict[str, float]]] = [[] for _ in sessions]
    start = time.perf_counter()
    for i in range(rounds or MOST_ROUNDS):
        if rounds is None and i >= LEAST_ROUNDS and time.perf_counter() - start > TIME_S:
            break
        for session, feed, found in zip(sessions, feeds, seen, strict=True):
            times: dict[str, float] = {}
            for row in session.profile(feed, rounds=1):
                times[row.node] = times.get(row.node, 0.0) + row.ms
            found.append(times)
    made = []
    for found in seen:
        least = {name: min(times[name] for times in found) for name in found[0]}
        usual = float(np.median([sum(times.values()) for times in found]))
        made.append(Steps(least, float(np.clip(usual / max(sum(least.values()), 1e-9), 1.0, MOST_PACE))))
    return made


def _feeds(session: Session) -> dict[str, Any]:
    """Random numbers, and ones for lengths."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for port in session.get_inputs():
        tensor = session.program.tensors[port.name]
        sizes = tensor.shape
        random = rng.standard_normal(sizes, np.float32) if tensor.dtype == "float32" else np.ones(sizes, tensor.dtype)
        feeds[port.name] = random
    return feeds


def _of(site: Site, times: Mapping[str, float]) -> float:
    return sum(times.get(node.name, 0.0) for node in site.nodes)
