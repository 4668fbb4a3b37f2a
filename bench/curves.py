"""Schemes side by side at equal sparsity, and cost as work grows: sparsity, image size, batch, threads. ResNet-18.

    python bench/curves.py            # some ten minutes; appends to bench/results/curves.jsonl, draws docs/curves.svg
    python bench/curves.py --report   # only draws

Random weights, all but the first convolution pruned. Every panel is one interleaved run per point, Prunus beside
onnxruntime on the same file. Pattern pruning keeps four of nine positions and drops whole kernels, as PatDNN does; its
layers without 3x3 kernels stay dense. N:M is 1:16, so 94 % of the weights that it fits.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import prunus
from prunus.benchmark.engines import open_engine
from prunus.benchmark.machine import describe_cpu
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import time_interleaved

sys.path.insert(0, str(Path(__file__).parent))
from zoo import ZOO

HERE = Path(__file__).parent
RESULTS, PLOT = HERE / "results" / "curves.jsonl", HERE.parent / "docs" / "curves.svg"
SCHEMES = (
    "block-column:8x64", "block-row:8x64", "bcr:8x64", "bcr:16x128", "punched:8x4", "pattern:4", "filter", "channel",
    "1:16", "unstructured",
)  # fmt: skip
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
CURVES = ("block-column:8x64", "bcr:8x64", "unstructured")
SIZES, BATCHES, THREADS = (64, 96, 128, 160, 224, 320), (1, 2, 4, 8, 16), (1, 2)


def network(scheme: str | None, sparsity: float, size: int = 224, batch: int = 1) -> onnx.ModelProto:
    """ResNet-18 with zeros; convolutions and a mean take any image size."""
    model = ZOO["resnet18"](batch)
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (size, size), strict=True):
        dim.dim_value = value
    if scheme is None or sparsity == 0:
        return model
    wanted = None if ":" in scheme and scheme[0].isdigit() else sparsity  # n:m says its own
    return prunus.prune_onnx(model, scheme=scheme, sparsity=wanted, ignore=[model.graph.node[0].name])


def measure(model: onnx.ModelProto, threads: int, time_s: float) -> dict[str, Any]:
    """Milliseconds of Prunus and onnxruntime, and the sparsity of all weights."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        session = prunus.compile(path, threads=threads)
        peer = open_engine("onnxruntime", path, Setting(threads))
        expected = peer.run(feeds)[0]
        error = float(np.abs(session.run(None, feeds)[0] - expected).max() / np.abs(expected).max())
        assert error < 1e-4, f"outputs differ by {error:.0e}"
        times = time_interleaved(
            {"prunus": lambda: session.run(None, feeds), "onnxruntime": lambda: peer.run(feeds)}, time_s, 0.2
        )
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    zeros = 1 - sum(np.count_nonzero(w) for w in weights) / sum(w.size for w in weights)
    return {"ms": {name: 1e3 * t.median_s for name, t in times.items()}, "zeros": float(zeros), "error": error}


def points() -> Iterator[tuple[dict[str, Any], onnx.ModelProto, int]]:
    """What is asked, its network, and the threads, of all panels."""
    for scheme in SCHEMES:
        yield {"panel": "schemes", "scheme": scheme}, network(scheme, 0.9), 1
    for scheme in CURVES:
        for sparsity in SPARSITIES:
            yield {"panel": "sparsity", "scheme": scheme, "at": sparsity}, network(scheme, sparsity), 1
    for panel, values in (("size", SIZES), ("batch", BATCHES), ("threads", THREADS)):
        for scheme in (None, "block-column:8x64"):
            for value in values:
                sized = network(scheme, 0.9, **({panel: value} if panel != "threads" else {}))
                yield (
                    {"panel": panel, "scheme": scheme or "dense", "at": value},
                    sized,
                    value if panel == "threads" else 1,
                )


def draw() -> None:
    """All panels of the newest measurements, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt

    newest = {}
    for line in RESULTS.read_text().splitlines():
        row = json.loads(line)
        newest[row["panel"], row["scheme"], row.get("at")] = row
    rows = list(newest.values())
    colours = {"block-column:8x64": "#0072b2", "bcr:8x64": "#009e73", "unstructured": "#cc79a7", "dense": "#e69f00"}
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7), layout="constrained")
    bars = sorted((r for r in rows if r["panel"] == "schemes"), key=lambda r: -r["ms"]["prunus"])
    names = [f"{r['scheme']} ({r['zeros']:.0%})" for r in bars]
    axes[0, 0].barh(names, [r["ms"]["onnxruntime"] / r["ms"]["prunus"] for r in bars], color="#0072b2")
    axes[0, 0].set_title("schemes at 90 % (zeros of all weights), times as fast as onnxruntime", fontsize=9)
    panels = (
        (axes[0, 1], "sparsity", "sparsity", "ms, 1 thread"), (axes[1, 0], "size", "image size", "ms, 1 thread"),
        (axes[1, 1], "batch", "batch", "images a second, 1 thread"),
    )  # fmt: skip
    for axis, panel, label, unit in panels:
        for scheme in dict.fromkeys(r["scheme"] for r in rows if r["panel"] == panel):
            own = sorted((r for r in rows if r["panel"] == panel and r["scheme"] == scheme), key=lambda r: r["at"])
            for engine, style in (("prunus", "-o"), ("onnxruntime", "--")):
                if engine == "onnxruntime" and scheme not in ("dense", "unstructured"):
                    continue  # it is as fast with zeros as without
                ms = [r["ms"][engine] for r in own]
                values = [1e3 * r["at"] / t for r, t in zip(own, ms, strict=True)] if panel == "batch" else ms
                text = f"{engine} {scheme}" if engine == "prunus" else engine
                axis.plot([r["at"] for r in own], values, style, color=colours[scheme], label=text, markersize=3)
        axis.set(xlabel=label, ylabel=unit, yscale="linear" if panel == "batch" else "log")
        axis.set_ylim(bottom=0 if panel == "batch" else None)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=1.0, help="seconds of timed calls per engine and point")
    parser.add_argument("--report", action="store_true", help="only draw the newest results")
    arguments = parser.parse_args()
    if not arguments.report:
        about = {"date": str(datetime.now(UTC).date()), "cpu": describe_cpu()}
        for asked, model, threads in points():
            row = about | asked | {"threads": threads} | measure(model, threads, arguments.time)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            found = ", ".join(f"{k} {v:.2f} ms" for k, v in row["ms"].items())
            print(f"{asked} {found}, {row['zeros']:.0%} zeros", flush=True)
    draw()


if __name__ == "__main__":
    main()
