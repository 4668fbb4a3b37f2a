"""Where the pruned convolutions of a network lose against the roofline: layers of each shape alone, in milliseconds, as
they run; with "one_place", where every column reads the same four lines, so that pixels cost nothing; and with
"no_stores", where all rows besides go to one plane, without residual and mask.

    python bench/sparse_losses.py    # a minute; writes bench/results/sparse_losses.jsonl

ResNet-50 at 90 %, batch 1, one thread, fp32, the first candidates of the tuner. `peak_ms` is what the same vectors of
pixels, padding included, would take in registers. What these runs compute is wrong on purpose, except as they run.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from prunus.compiler.choice import Choice, candidates, examine
from prunus.compiler.compile import read_at_batch_1
from prunus.compiler.translate import Decision, Layer, layer_of, spell_out, translate
from prunus.compiler.tune import alone, layer_shape, signature
from prunus.graph.ir import Graph
from prunus.kernels.isa import Isa, isa_of
from prunus.kernels.library import kernel_library
from prunus.pruning.one_shot import prune_onnx
from prunus.runtime.artefact import pack
from prunus.runtime.cpu import describe
from prunus.runtime.native import Bound, Library, Pool, open_library
from prunus.runtime.plan import make_plan
from prunus.runtime.records import KINDS, NOWHERE, RECORDS

sys.path.insert(0, str(Path(__file__).parent))
from zoo import ZOO

RESULTS = Path(__file__).parent / "results" / "sparse_losses.jsonl"
SCHEMES = ("block-column:8x64", "bcr:8x64")
VARIANTS = ("as_it_runs", "one_place", "no_stores")
ROUNDS, FAR = 15, (1 << 40) - 1


def layers(scheme: str, isa: Isa) -> Iterator[tuple[Layer, Graph]]:
    """The pruned convolutions of more than one pixel, one of each shape."""
    graph = spell_out(read_at_batch_1(prune_onnx(ZOO["resnet50"](), scheme, 0.9), None, True))
    seen = set()
    for node in graph.nodes:
        if node.op == "conv" and not (layer := layer_of(node, graph, isa)).matrix.all():
            key = signature(node, graph)
            if key not in seen:
                seen.add(key)
                yield layer, graph


def bound_as(variant: str, library: Library, graph: Graph, isa: Isa, choice: Choice) -> Bound:
    """A layer alone, its plan changed into a variant."""
    program, constants = pack(translate(graph, isa, lambda *_: Decision(choice, "", "")))
    bound = Bound(library, make_plan(program), constants, 1)
    records, tables = bound.plan.records, bound.plan.tables
    at = 0
    while records[at] != KINDS["conv"]:
        at += int(records[at + 1])
    places = {name: at + 2 + i for i, name in enumerate(RECORDS["conv"])}
    if variant != "as_it_runs":
        first, end = (int(records[places[name]]) & FAR for name in ("offsets", "groups"))
        tables[first:end] = np.arange(end - first) % 4 * 16
    if variant == "no_stores":
        records[places["plane"]] = 0
        records[places["residual"]] = records[places["mask"]] = NOWHERE
    return bound


def measure(
    layer: Layer, graph: Graph, isa: Isa, library: Library, pool: Pool, peak: float
) -> Iterator[dict[str, Any]]:
    """A row per candidate and layer."""
    lone, shape = alone(layer, graph), layer_shape(layer, graph, isa, 1)
    rng = np.random.default_rng(0)
    ports = [rng.standard_normal(lone.values[name].shape, np.float32) for name in (*lone.inputs, *lone.outputs)]
    node, values = layer.node, graph.values
    operations = 2 * np.count_nonzero(layer.matrix) * shape.vectors * isa.lanes
    for choice in candidates(shape, examine(layer.matrix), isa)[:4]:
        runs = [bound_as(variant, library, lone, isa, choice) for variant in VARIANTS]
        best = [np.inf] * len(runs)
        for _ in range(ROUNDS):
            for i, run in enumerate(runs):
                times = np.zeros(len(run.plan.slots), np.int64)
                run.run(pool, run.plan.stages[0], ports, times)
                convs = np.array([slot.op for slot in run.plan.slots]) == len(lone.inputs)
                best[i] = min(best[i], float(times[convs].sum()) * 1e-6)
        yield {
            "layer": node.name, "x": values[node.inputs[0]].shape, "y": values[node.outputs[0]].shape,
            "kernel": node.attrs["kernel"], "residual": len(node.inputs) > 1, "choice": str(choice),
            "peak_ms": round(operations / peak * 1e3, 4),
            **{f"{variant}_ms": round(ms, 4) for variant, ms in zip(VARIANTS, best, strict=True)},
        }  # fmt: skip


def main() -> None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    cpu = describe()
    assert cpu.best_target, "no target for this CPU"
    isa = isa_of(cpu.best_target)
    library = open_library(kernel_library(isa))
    pool, peak = Pool(library, 1), max(library.peak(1) for _ in range(5))
    date = datetime.now(UTC).date().isoformat()
    head = {"date": date, "machine": cpu.name, "target": cpu.best_target, "commit": commit}
    rows = []
    for scheme in SCHEMES:
        for layer, graph in layers(scheme, isa):
            for row in measure(layer, graph, isa, library, pool, peak):
                rows.append(head | {"scheme": scheme} | row)
                shares = ", ".join(f"{v} {row['peak_ms'] / row[f'{v}_ms']:.2f}" for v in VARIANTS)
                print(f"{scheme} {row['layer']} {row['x'][1:]} to {row['y'][1:]}, {row['choice']}: {shares}")
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
