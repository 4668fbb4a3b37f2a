"""The first table: ResNet-50 pruned in several shapes, Prunus beside the faster of onnxruntime and openvino.

    python bench/first_light.py            # all rows, about five minutes; appends to bench/results/first_light.jsonl
    python bench/first_light.py --readme   # writes the table of the last run into README.md

Random weights, all but the first convolution pruned by `prunus.prune_onnx`, batch 1, 224 x 224, one thread, fp32. All
engines take turns in one run; a ratio is the median over rounds of the ratio within a round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import prunus
from prunus.benchmark.engines import ENGINES
from prunus.benchmark.race import benchmark, paired_ratio
from prunus.benchmark.sessions import Setting
from prunus.runtime.cpu import describe

sys.path.insert(0, str(Path(__file__).parent))
from zoo import ZOO

RESULTS = Path(__file__).parent / "results" / "first_light.jsonl"
README = Path(__file__).parent.parent / "README.md"
# work, scheme, sparsity, at least as fast as the best peer, artefact bytes over kept weights * 4
ROWS = (
    ("columns pruned in blocks", "block-column:8x64", 0.9, 4.0, 1.15),
    ("rows and columns pruned in blocks", "bcr:8x64", 0.9, 3.0, 1.3),
    ("unstructured", "unstructured", 0.9, 2.0, 1.7),
    ("no zeros at all", None, 0.0, 0.85, None),
)
COMPILE_S = 20.0
ERROR = 1e-4


def measure(scheme: str | None, sparsity: float, time_s: float, threads: int) -> dict[str, Any]:
    """One row: prune, compile, check, race."""
    model = ZOO["resnet50"]()
    if scheme:
        model = prunus.prune_onnx(model, scheme=scheme, sparsity=sparsity, ignore=[model.graph.node[0].name])
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    kept = sum(int(np.count_nonzero(w)) for w in weights if w.ndim > 1)
    with tempfile.TemporaryDirectory() as folder:
        source, artefact = Path(folder) / "resnet50.onnx", Path(folder) / "resnet50.prunus"
        onnx.save(model, source)
        start = time.perf_counter()
        session = prunus.compile(source, threads=threads)
        compile_s = time.perf_counter() - start
        session.save(artefact)
        del session
        result = benchmark([artefact, source], list(ENGINES), Setting(threads), time_s=time_s, footprints=False)
        size = artefact.stat().st_size
    assert not result.mismatches, result.mismatches
    own = next(row for row in result.rows if row.model.endswith(".prunus"))
    peers = [row for row in result.rows if row.engine != "prunus" and row.median_ms]
    best = min(peers, key=lambda row: row.median_ms or 0.0)
    ratio = paired_ratio(own, best)
    medians = {row.engine: round(row.median_ms or 0.0, 3) for row in (own, *peers)}
    error = max((row.error for row in result.rows if row.error is not None), default=None)
    return {
        "scheme": scheme or "dense", "sparsity": sparsity, "threads": threads, "compile_s": round(compile_s, 2),
        "error": error, "artefact_over_kept": round(size / (kept * 4), 4), "ms": medians, "best_peer": best.engine,
        "ratio": round(ratio.median, 3), "quartiles": [round(ratio.lower, 3), round(ratio.upper, 3)],
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = rows[0]
    lines = [
        f"ResNet-50, batch 1, 224 x 224, {head['threads']} thread, fp32, random weights, all but the first convolution "
        f"pruned; {head['machine']}, {head['date']}. Medians of one interleaved run by `python bench/first_light.py`.",
        "",
        "| pruned | Prunus, ms | onnxruntime | openvino | against the faster (quartiles) | compile, s | file / kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms, (low, high) = row["ms"], row["quartiles"]
        name = "dense" if row["scheme"] == "dense" else f"`{row['scheme']}` {row['sparsity']:.0%}"
        lines.append(
            f"| {name} | {ms['prunus']:.1f} | {ms['onnxruntime']:.1f} | {ms['openvino']:.1f} | "
            f"**{row['ratio']:.2f}x** ({low:.2f} to {high:.2f}) | {row['compile_s']:.1f} | "
            f"{row['artefact_over_kept']:.2f} |"
        )
    return "\n".join(lines)


def write_readme() -> None:
    """Put the table of the last run between the README's markers."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    rows = [row for row in rows if row["run"] == rows[-1]["run"]]
    before, rest = README.read_text().split("<!-- table:first-light -->")
    after = rest.split("<!-- /table -->", 1)[1]
    README.write_text(f"{before}<!-- table:first-light -->\n{table(rows)}\n<!-- /table -->{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=4.0, help="seconds of timed calls per engine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--readme", action="store_true", help="only write the last run's table into README.md")
    arguments = parser.parse_args()
    if arguments.readme:
        write_readme()
        return 0
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    now = datetime.now(UTC)
    shared = {
        "run": now.isoformat(timespec="seconds"), "date": str(now.date()), "machine": describe().name,
        "target": describe().best_target, "commit": commit.stdout.strip(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:  # no times measured before; the kernel library is built here, once
        os.environ["XDG_CACHE_HOME"] = cache
        prunus.compile(ZOO["mobilenetv2"](), threads=1, tune="off")
        return race_all(shared, arguments.time, arguments.threads)


def race_all(shared: dict[str, Any], time_s: float, threads: int) -> int:
    """All rows, printed and appended to RESULTS. 1 if one falls short, else 0."""
    RESULTS.parent.mkdir(exist_ok=True)
    short = False
    for work, scheme, sparsity, at_least, most_size in ROWS:
        row = shared | measure(scheme, sparsity, time_s, threads)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        marks = {
            f"{row['ratio']:.2f}x (at least {at_least}x)": row["ratio"] >= at_least,
            f"compile {row['compile_s']:.1f} s (below {COMPILE_S:.0f})": row["compile_s"] < COMPILE_S,
            f"error {row['error']:.0e} (at most {ERROR:.0e})": row["error"] <= ERROR,
        }
        if most_size:
            marks[f"file {row['artefact_over_kept']:.3f} (below {most_size})"] = row["artefact_over_kept"] < most_size
        short |= not all(marks.values())
        low, high = row["quartiles"]
        print(f"{work}: prunus {row['ms']['prunus']:.1f} ms, {row['best_peer']} {row['ms'][row['best_peer']]:.1f} ms, "
              f"quartiles of the ratio {low:.2f} to {high:.2f}")  # fmt: skip
        for text, good in marks.items():
            print(f"    {'pass ' if good else 'SHORT'} {text}", flush=True)
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
