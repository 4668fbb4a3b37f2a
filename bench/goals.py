"""The goals: pruned networks against every engine that is installed, each with a pass or short mark.

    python bench/goals.py                       # all rows, 1 and 2 threads; appends to bench/results/goals.jsonl
    python bench/goals.py --only resnet50 --threads 1 --time 1
    python bench/goals.py --report              # only the table and plot of the newest results, into README.md

Random weights, batch 1. Each row is one interleaved run of Prunus and its peers at the same threads and inputs, after
outputs were compared with onnxruntime's; a ratio is the median over rounds of the ratio within a round. Peers that
aren't installed are named and left out: `pip install ".[bench,peers]"` brings them. int8 peers run a QDQ file that
onnxruntime makes; Prunus gets the same float file and the same calibration data. A row measured at this commit is
skipped unless --again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import prunus
from prunus.benchmark.engines import ENGINES, missing, open_engine
from prunus.benchmark.machine import describe_cpu
from prunus.benchmark.refusals import EngineRefusal
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import ratio_of_rounds, time_interleaved
from prunus.runtime.session import Session

sys.path.insert(0, str(Path(__file__).parent))
from zoo import ZOO

HERE = Path(__file__).parent
RESULTS, README, PLOT = HERE / "results" / "goals.jsonl", HERE.parent / "README.md", HERE.parent / "docs" / "goals.svg"
FP32 = ("onnxruntime", "openvino", "ncnn", "mnn", "litert")
BOUNDS = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.1}  # fp32: of the largest output; else root mean square, relative
Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Goal:
    """A row: a pruned network, and how many times as fast as the best of some peers it has to be."""

    network: str
    scheme: str | None
    sparsity: float
    targets: tuple[tuple[str, tuple[str, ...], float], ...]  # said as, peers (the best of them), at least
    precision: str = "fp32"

    @property
    def key(self) -> str:
        shape = "dense" if self.scheme is None else f"{self.scheme} {self.sparsity:.0%}"
        return f"{self.network} {shape} {self.precision}"


def best(at_least: float, *peers: str) -> tuple[tuple[str, tuple[str, ...], float], ...]:
    """One target: against the best of the peers, all fp32 ones if none is named."""
    return ((" and ".join(peers) or "the best", peers or FP32, at_least),)


GOALS = (
    Goal("resnet50", "block-column:8x64", 0.9, best(7.0)),
    Goal("resnet50", "bcr:8x64", 0.9, best(4.5)),
    Goal("resnet50", "bcr:16x128", 0.9, best(5.5)),
    Goal("resnet50", "unstructured", 0.9, best(3.0)),
    Goal("resnet50", "punched:8x2", 0.9, best(6.0, "openvino-bf16"), "bf16"),
    Goal("resnet50", "punched:8x4", 0.9, best(5.0, "onnxruntime", "openvino"), "int8"),
    Goal("resnet50", None, 0.0, best(0.97)),
    Goal("vgg16", "block-column:8x64", 0.9, (*best(3.5), *best(8.0, "onnxruntime"))),
    Goal(
        "vgg16", "block-column:8x64", 0.95,
        (*best(14.1, "litert"), *best(14.1, "onnxruntime"), *best(14.1, "openvino")),
    ),
    Goal("vgg16-32", "block-column:8x64", 0.95, (*best(10.0, "onnxruntime"), *best(10.0, "openvino"))),
    Goal("mobilenetv2", "block-column:8x64", 0.8, best(2.5)),
    Goal("efficientnet-lite0", "block-column:8x64", 0.8, best(2.5)),
)  # fmt: skip


def pruned(goal: Goal) -> onnx.ModelProto:
    """The network with zeros everywhere but in its first convolution and depthwise ones."""
    model = ZOO[goal.network]()
    if goal.scheme is None:
        return model
    return prunus.prune_onnx(model, scheme=goal.scheme, sparsity=goal.sparsity, ignore=[model.graph.node[0].name])


def quantised(model: onnx.ModelProto, feeds: list[Feeds], folder: Path) -> Path:
    """A QDQ file by onnxruntime's static quantisation, per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rest: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.rest, None)

    onnx.save(model, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "qdq.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True
    )
    return folder / "qdq.onnx"


def measure(goal: Goal, threads: int, time_s: float) -> dict[str, Any]:
    """One row: prune, compile, compare outputs, race."""
    model = pruned(goal)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal(shape, np.float32)} for _ in range(3)]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        folder = Path(name)
        path = folder / "model.onnx"
        onnx.save(model, path)
        start = time.perf_counter()
        calibration = feeds if goal.precision == "int8" else None
        session = prunus.compile(path, threads=threads, precision=goal.precision, calibration=calibration)
        compile_s = time.perf_counter() - start
        expected = open_engine("onnxruntime", path, Setting(threads)).run(feeds[0])[0]
        error = error_of(session.run(None, feeds[0])[0], expected, goal.precision)
        calls: dict[str, Callable[[], object]] = {"prunus": lambda: session.run(None, feeds[0])}
        source = quantised(model, feeds, folder) if goal.precision == "int8" else path
        wanted = dict.fromkeys(peer for _, peers, _ in goal.targets for peer in peers)
        for engine in wanted:
            if reason := missing(engine):
                notes.append(str(reason))
                continue
            try:
                peer = open_engine(engine, source, Setting(threads))
            except EngineRefusal as refusal:
                notes.append(str(refusal))
                continue
            theirs = error_of(peer.run(feeds[0])[0], expected, goal.precision)
            if theirs > BOUNDS[goal.precision]:
                notes.append(f"{engine}: outputs differ by {theirs:.0e}, left out")
                continue
            calls[engine] = lambda peer=peer: peer.run(feeds[0])  # type: ignore[misc]
        times = time_interleaved(calls, time_s, 0.3)
        notes += [str(warning.message) for warning in said if "precision" in str(warning.message)]
        path = folder / "model.prunus"
        session.save(path)
        size = path.stat().st_size
    ratios = {
        engine: ratio_of_rounds(times["prunus"].rounds, times[engine].rounds) for engine in calls if engine != "prunus"
    }
    return {
        "key": goal.key, "threads": threads, "compile_s": compile_s, "error": error, "notes": notes,
        "ms": {engine: 1e3 * found.median_s for engine, found in times.items()},
        "ratios": {engine: [r.lower, r.median, r.upper] for engine, r in ratios.items()},
        "artefact_bytes": size, **layers(session, feeds[0], goal),
    }  # fmt: skip


def error_of(found: NDArray[Any], expected: NDArray[Any], precision: str) -> float:
    """Largest difference over the largest output, or, below fp32, root mean square over root mean square."""
    if precision == "fp32":
        return float(np.abs(found - expected).max() / np.abs(expected).max())
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def layers(session: Session, feeds: Feeds, goal: Goal) -> dict[str, Any]:
    """What the sparse convolutions reach of the peak, by the median, and the same zeros through CSR."""
    least: dict[str, Any] = {}
    for _ in range(5):
        for row in session.profile(feeds, rounds=4):
            if row.node not in least or row.ms < least[row.node].ms:
                least[row.node] = row
    sparse = [row for row in least.values() if row.op == "conv" and row.sparsity and row.sparsity > 0.3]
    if not sparse:
        return {"of_peak": None, "csr_over_prunus": None}
    found: dict[str, Any] = {"of_peak": float(np.median([row.of_peak for row in sparse])), "csr_over_prunus": None}
    if session.threads == 1 and goal.precision == "fp32":
        names = {row.node for row in sparse}
        found["csr_over_prunus"] = csr_ms(session, goal, names) / sum(row.ms for row in sparse)
    return found


def csr_ms(session: Session, goal: Goal, names: set[str]) -> float:
    """Milliseconds of the same zeros as scipy's CSR matrices times dense columns, one thread; im2col isn't counted."""
    model = pruned(goal)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    total = 0.0
    for node in model.graph.node:
        op = next((op for op in session.program.ops if op.name == node.name and op.name in names), None)
        if op is None:
            continue
        pixels = int(np.prod(session.program.shape(op.outputs[0], 1)[2:]))
        matrix = csr_matrix(weights[node.input[1]].reshape(len(weights[node.input[1]]), -1))
        columns = np.random.default_rng(0).standard_normal((matrix.shape[1], pixels), np.float32)
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ columns
            spent.append(time.perf_counter() - start)
        total += 1e3 * min(spent)
    return total


def marks(row: dict[str, Any]) -> list[tuple[str, bool | None]]:
    """What is asked of a row and whether it is met; None where it wasn't measured."""
    goal = next(goal for goal in GOALS if goal.key == row["key"])
    found: list[tuple[str, bool | None]] = []
    for said, peers, at_least in goal.targets:
        raced = [row["ratios"][peer] for peer in peers if peer in row["ratios"]]
        if not raced:
            found.append((f"{said}: not raced", None))
            continue
        low, median, high = min(raced, key=lambda ratio: ratio[1])
        met = median >= at_least and not any("computed in fp32" in note for note in row["notes"])
        found.append((f"{median:.2f}x {said} ({low:.2f} to {high:.2f}; at least {at_least:g}x)", met))
    if goal.scheme not in (None, "unstructured") and row["of_peak"] is not None:
        share = 0.7 if goal.precision == "int8" else 0.8
        found.append((f"{row['of_peak']:.0%} of peak ({share:.0%})", row["of_peak"] >= share))
    if row["csr_over_prunus"]:
        found.append((f"{row['csr_over_prunus']:.1f}x CSR (5x)", row["csr_over_prunus"] >= 5))
    if goal.network == "resnet50":
        found.append((f"compile {row['compile_s']:.1f} s (15 s)", row["compile_s"] <= 15))
    found.append((f"error {row['error']:.0e}", row["error"] <= BOUNDS[goal.precision]))
    return found


def newest() -> list[dict[str, Any]]:
    """The last measurement of every row and number of threads, in the order of GOALS."""
    rows = {}
    for line in RESULTS.read_text().splitlines():
        row = json.loads(line)
        rows[row["threads"], row["key"]] = row
    order = [goal.key for goal in GOALS]
    known = [row for row in rows.values() if row["key"] in order]
    return sorted(known, key=lambda row: (row["threads"], order.index(row["key"])))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    about = rows[-1]
    lines = [
        f"Batch 1, random weights, all but the first convolution and depthwise layers pruned; {about['cpu']['name']} "
        f"({about['cpu']['target']}), {about['date']}, by `python bench/goals.py`. Times in ms, medians of one "
        "interleaved run per row; ratios with quartiles.",
        "",
        "| network, zeros, precision | threads | Prunus | " + " | ".join(FP32) + " | goals |",
        "|---|---|---" + "|---" * len(FP32) + "|---|",
    ]
    for row in rows:
        ms = row["ms"]
        peers = [f"{ms.get(e, ms.get(e + '-bf16', 0)):.1f}" if e in ms or f"{e}-bf16" in ms else "-" for e in FP32]
        said = "; ".join(f"{'**pass**' if met else 'not raced' if met is None else 'short'} {text}"
                         for text, met in marks(row))  # fmt: skip
        lines.append(f"| {row['key']} | {row['threads']} | {ms['prunus']:.1f} | {' | '.join(peers)} | {said} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> None:
    """Ratios against their goals at one thread, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt

    bars = []
    for row in (row for row in rows if row["threads"] == 1):
        goal = next(goal for goal in GOALS if goal.key == row["key"])
        for said, peers, at_least in goal.targets[:1]:
            raced = [row["ratios"][peer] for peer in peers if peer in row["ratios"]]
            if raced:
                bars.append((row["key"], min(raced, key=lambda ratio: ratio[1]), at_least, said))
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(bars) + 1.2), layout="constrained")
    for i, (_, (low, median, high), at_least, said) in enumerate(reversed(bars)):
        axes.barh(i, median, color="#0072b2", height=0.6)
        axes.plot([low, high], [i, i], color="black", linewidth=1.5)
        axes.plot([at_least] * 2, [i - 0.4, i + 0.4], color="#d55e00", linewidth=2)
        axes.text(max(high, median) + 0.15, i, f"{median:.1f}x {said}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [bar[0] for bar in reversed(bars)], fontsize=8)
    axes.set_xlim(0, 1.25 * max(max(bar[1][1], bar[2]) for bar in bars))
    axes.set_xlabel("times as fast as the peer named, 1 thread; black: quartiles, orange: goal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, metadata={"Date": None})


def report() -> None:
    """Table and plot of the newest results, between the README's markers."""
    rows = newest()
    before, rest = README.read_text().split("<!-- table:goals -->")
    after = rest.split("<!-- /table -->", 1)[1]
    README.write_text(f"{before}<!-- table:goals -->\n{table(rows)}\n<!-- /table -->{after}")
    plot(rows)


def commit() -> str:
    """The commit that is measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of the peers that are installed."""
    found = {}
    for package in ("onnxruntime", "openvino", "ncnn", "MNN", "ai-edge-litert"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--time", type=float, default=3.0, help="seconds of timed calls per engine")
    parser.add_argument("--again", action="store_true", help="measure rows that this commit has already")
    parser.add_argument(
        "--report", action="store_true", help="only write the newest results into README.md and the plot"
    )
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return 0
    for engine in ENGINES:
        if reason := missing(engine):
            print(f"left out: {reason}")
    about = {"date": str(datetime.now(UTC).date()), "commit": commit(), "cpu": describe_cpu(), "versions": versions()}
    done = {(row["threads"], row["key"], row["commit"]) for row in newest()} if RESULTS.exists() else set()
    short = False
    prunus.compile(ZOO["mobilenetv2"](), threads=1, tune="off")  # the kernel library is built here, once
    for threads in arguments.threads:
        for goal in GOALS:
            if arguments.only not in goal.key or ((threads, goal.key, about["commit"]) in done and not arguments.again):
                continue
            row = about | measure(goal, threads, arguments.time)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{goal.key}, {threads} thread(s): " + ", ".join(f"{k} {v:.2f} ms" for k, v in row["ms"].items()))
            for text, met in marks(row):
                short |= met is False
                print(f"    {'pass ' if met else '  -  ' if met is None else 'SHORT'} {text}", flush=True)
            for note in row["notes"]:
                print(f"    {note}")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
