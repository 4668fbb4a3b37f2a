"""From layers alone to layers in a network: there inputs come from other caches, and a step has its overhead.

Two networks are measured whole, as it is without zeros and as some pruned version: the time of each layer in its place,
and of everything else. Dense layers then count as measured there. Of sparse ones, time in place is taken as an affine
function of time alone, fitted over the pruned network's layers.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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

ROUNDS = 25  # of each network; the least time of each step counts
MOST_PACE = 1.1  # a median round over the sum of least times; more is the neighbours' fault
TRIAL = (("punched:8x4", 0.9), ("punched:8x4", 0.7), ("bcr:8x64", 0.8), ("unstructured", 0.9))  # in turns


@final
@dataclass(frozen=True)
class InPlace:
    """dense: milliseconds of each layer in the dense network, by name; other_ms: of the rest of it. slope, offset_ms:
    of a pruned layer's time there over its time alone. pace: what a usual run takes over the sum of least times, which
    all the others are."""

    dense: Mapping[str, float]
    other_ms: float
    slope: float = 1.0
    offset_ms: float = 0.0
    pace: float = 1.0

    def ms(self, alone_ms: float) -> float:
        """Of a pruned layer that takes so long alone."""
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
    least, pace = steps_ms(compiled(network, dense_weights(network.model)))
    dense = {site.name: _of(site, least) for site in network.sites}
    trial = trial_of(network)
    if not trial:
        return InPlace(dense, sum(least.values()) - sum(dense.values()), pace=pace)
    say("the network, pruned")
    rules = [(name, how) for name, how in trial.items()]
    sparse, other = steps_ms(compiled(network, prune_by_rules(network.model, rules, optional=list(trial)).model))
    pairs = []
    for site in network.sites:
        if site.name in trial:
            scheme, sparsity = trial[site.name]
            pairs.append((table.time(site, scheme, sparsity).ms, _of(site, sparse)))
    slope, offset = fit(np.array(pairs))
    others = sum(least.values()) - sum(dense.values())
    return InPlace(dense, others, slope, offset, min(pace, other))


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
    """Slope and offset of float64[n, (alone, in place)]: least squares of relative errors, within bounds of sense."""
    alone, placed = pairs.T
    if len(pairs) < 4:
        return float(np.clip(np.median(placed / alone), 0.8, 2.0)), 0.0
    slope, offset = np.linalg.lstsq(np.stack([alone / placed, 1 / placed], axis=1), np.ones(len(pairs)), rcond=None)[0]
    if offset < 0 or not 0.8 <= slope <= 1.5:
        slope = float(np.clip(np.median(placed / alone), 0.8, 1.5))
        offset = float(np.median(placed - slope * alone))
    return float(slope), float(max(offset, 0.0))


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


def steps_ms(session: Session, rounds: int = ROUNDS) -> tuple[dict[str, float], float]:
    """The least milliseconds of each step by its node's name, and how many times their sum a usual round takes."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for port in session.get_inputs():
        tensor = session.program.tensors[port.name]
        sizes = tensor.shape
        random = rng.standard_normal(sizes, np.float32) if tensor.dtype == "float32" else np.ones(sizes, tensor.dtype)
        feeds[port.name] = random
    seen: list[dict[str, float]] = []
    for _ in range(rounds):
        times: dict[str, float] = {}
        for row in session.profile(feeds, rounds=1):
            times[row.node] = times.get(row.node, 0.0) + row.ms
        seen.append(times)
    least = {name: min(times[name] for times in seen) for name in seen[0]}
    usual = float(np.median([sum(times.values()) for times in seen]))
    return least, float(np.clip(usual / max(sum(least.values()), 1e-9), 1.0, MOST_PACE))


def _of(site: Site, times: Mapping[str, float]) -> float:
    return sum(times.get(node.name, 0.0) for node in site.nodes)
