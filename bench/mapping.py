"""What mapping promises of latency, measured: plans, predictions, break-even.

    python -m bench.mapping [--only TEXT ...] [--quick] [--again] [--list] [--time 4]

One thread, fp32, random weights. Rows go to bench/results/mapping.jsonl; one that was measured at this commit is
skipped unless --again. The latency table fills up in the user's cache on the way, and is used again.

promise NETWORK METHOD: `map --speedup 4`, one-shot pruned by the plan, compiled: times as fast as dense, in turns.
predict NETWORK I: a random plan (scheme and sparsity per layer at random): predicted against measured.
even NETWORK: a plan by rules; each pruned layer in its place in the network against the same dense one.
warm NETWORK: seconds of a rule-based plan once the table is filled.
table NETWORK: interpolated entries of the table against fresh measurements.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from bench import networks, store
from bench.zoo import ZOO
from prunus.benchmark.timing import speed_ratio, time_interleaved
from prunus.mapping.accuracy import check_table
from prunus.mapping.in_place import compiled, steps_in_turns
from prunus.mapping.network import read_network
from prunus.mapping.options import Sources, option, schemes_for, sources_of, space_of, sparsities_of
from prunus.mapping.plan import Budget, Plan, make_plan, plan_of
from prunus.mapping.rules import Terms
from prunus.mapping.space import Option
from prunus.pruning.one_shot import prune_by_rules
from prunus.sparsity.scheme import parse

RESULTS = store.RESULTS / "mapping.jsonl"
PLANS = 20  # random ones
SPEEDUP, LEAST = 4.0, 3.6  # asked for, and what is to be measured
LIMIT = 0.1  # of a prediction's error
WARM_S = 60.0
EVEN = {"mobilenetv2": 0.7, "efficientnet-lite0": 0.7}  # sparsity asked for
NOISE = 1.03  # a layer counts as slower than dense beyond that
ENTRIES = 60  # of the table, measured anew

_open: dict[str, Sources] = {}


def sources(network: str) -> Sources:
    """The costs of a zoo network, measured where they aren't kept."""
    if network not in _open:
        read = read_network(ZOO[network](), threads=1)
        _open[network] = sources_of(read, progress=lambda step: print(f"  {step}", flush=True))
    return _open[network]


def pruned(about: Sources, plan: Plan) -> onnx.ModelProto:
    """One-shot, as `prunus prune --plan` does it."""
    rules = [
        (row.layer.name, None if row.option.scheme is None else (parse(row.option.scheme), row.option.sparsity))
        for row in plan.rows
    ]
    return prune_by_rules(about.network.model, rules).model


def promise(network: str, method: str, time_s: float) -> store.Row:
    """The measured speed-up of a plan for SPEEDUP."""
    about = sources(network)
    plan = make_plan(about, Budget("speedup", SPEEDUP), method, Terms())
    found = _race(about, plan, time_s)
    return {**found, "value": found["times_dense"][1], "pass": found["times_dense"][1] >= LEAST}


def predict(network: str, index: int, time_s: float) -> store.Row:
    """The error of a random plan's prediction."""
    about = sources(network)
    found = _race(about, random_plan(about, index), time_s)
    error = found["predicted_ms"] / found["ms"] - 1
    return {**found, "value": round(error, 4), "pass": abs(error) <= LIMIT}


def random_plan(about: Sources, seed: int) -> Plan:
    """Every layer that can be pruned gets any scheme and sparsity that it can have, faster or not."""
    rng = np.random.default_rng(seed)

    def options_of(site: Any, dense: Option) -> list[Option]:
        schemes = [] if site.refusal else schemes_for(site, "fp32")
        if not schemes:
            return []
        scheme = schemes[rng.integers(len(schemes))]
        wanted = sparsities_of(scheme)
        return [option(about, site, scheme, wanted[rng.integers(len(wanted))])]

    space = space_of(about, options_of)
    mapping = [len(layer.options) - 1 for layer in space.layers]
    return plan_of(about, space, mapping, [""] * len(mapping), Budget("speedup", 1.0), "random")


def even(network: str, time_s: float) -> store.Row:
    """Pruned layers that are slower in the network than dense ones there: least times of both, in turns."""
    about = sources(network)
    plan = make_plan(about, Budget("sparsity", EVEN[network]), "rules", Terms())
    sessions = [compiled(about.network, about.network.model), compiled(about.network, pruned(about, plan))]
    least = [steps.ms for steps in steps_in_turns(sessions, None if time_s else 3)]
    chosen = [row.layer.name for row in plan.rows if row.option.scheme is not None]
    ratios = {name: least[1][name] / least[0][name] for name in chosen}
    slower = {name: round(ratio, 3) for name, ratio in ratios.items() if ratio > NOISE}
    return {"layers": len(chosen), "slower": slower, "value": round(max(ratios.values()), 3), "pass": not slower}


def warm(network: str, time_s: float) -> store.Row:
    """Seconds from the file to the plan with nothing left to measure."""
    make_plan(sources(network), Budget("speedup", 2.0), "rules", Terms())
    start = time.perf_counter()
    about = sources_of(read_network(ZOO[network](), threads=1))
    make_plan(about, Budget("speedup", 2.0), "rules", Terms())
    seconds = time.perf_counter() - start
    return {"value": round(seconds, 2), "pass": seconds <= WARM_S}


def table(network: str, time_s: float) -> store.Row:
    """Errors of interpolated entries."""
    about = sources(network)
    found = check_table(about.network, about.table, ENTRIES if time_s else 2)
    return {**asdict(found), "value": round(found.p90, 4)}


def _race(about: Sources, plan: Plan, time_s: float) -> store.Row:
    """A plan's network and the dense one in turns."""
    x = networks.feeds(about.network.model, 0)
    dense, sparse = compiled(about.network, about.network.model), compiled(about.network, pruned(about, plan))
    calls = {"dense": lambda: dense.run(None, x), "sparse": lambda: sparse.run(None, x)}
    times = time_interleaved(calls, time_s, min(1.0, time_s))
    ratio = speed_ratio(times["sparse"], times["dense"])
    return {
        "ms": round(times["sparse"].median_s * 1e3, 4), "least_ms": round(times["sparse"].min_s * 1e3, 4),
        "dense_ms": round(times["dense"].median_s * 1e3, 4), "predicted_ms": round(plan.predicted_ms, 4),
        "predicted_dense_ms": round(plan.dense_ms, 4), "sparsity": round(plan.sparsity, 4),
        "times_dense": [round(value, 3) for value in (ratio.lower, ratio.median, ratio.upper)],
        "predicted_times_dense": round(plan.dense_ms / plan.predicted_ms, 3),
    }  # fmt: skip


def rows() -> dict[str, Callable[[float], store.Row]]:
    """All rows by key."""
    found: dict[str, Callable[[float], store.Row]] = {}
    for method in ("rules", "exact"):
        found[f"promise resnet18 {method}"] = lambda t, m=method: promise("resnet18", m, t)  # type: ignore[misc]
    for network in ("resnet18", "mobilenetv2"):
        for i in range(PLANS):
            found[f"predict {network} {i}"] = lambda t, n=network, i=i: predict(n, i, t)  # type: ignore[misc]
    for network in EVEN:
        found[f"even {network}"] = lambda t, n=network: even(n, t)  # type: ignore[misc]
    for network in ("resnet18", "mobilenetv2"):
        found[f"warm {network}"] = lambda t, n=network: warm(n, t)  # type: ignore[misc]
        found[f"table {network}"] = lambda t, n=network: table(n, t)  # type: ignore[misc]
    return found


def main() -> int:
    """Measure what isn't measured at this commit. Exit status 1: something is short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose key holds one of these")
    parser.add_argument("--time", type=float, default=4.0, help="seconds of timed calls per network")
    parser.add_argument("--quick", action="store_true", help="as few calls as possible; never a result")
    parser.add_argument("--again", action="store_true", help="also rows measured at this commit")
    parser.add_argument("--list", action="store_true", help="print the keys")
    options = parser.parse_args()
    chosen = {key: call for key, call in rows().items() if any(text in key for text in options.only)}
    if options.list:
        print("\n".join(chosen))
        return 0
    stamp, short = store.stamp(), 0
    for key, call in chosen.items():
        if not options.again and store.is_measured(store.read(RESULTS), key, stamp["commit"]):
            continue
        row = {"key": key, **stamp, "quick": options.quick, **call(0.0 if options.quick else options.time)}
        store.append(RESULTS, row)
        short += row.get("pass") is False
        print(f"{key:32} {row['value']:<10} {'' if row.get('pass', True) else 'short'}", flush=True)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
