"""Accuracy against measured latency: the networks of bench.training, compiled and timed in one interleaved run.

    python -m bench.frontier [--time 2]      # appends to bench/results/frontier.jsonl

Times the ONNX files that `python -m bench.training` left in out/training, on one thread, each beside onnxruntime on
the dense network. Accuracies are those of bench/results/training.jsonl. `python -m bench.report` draws
docs/frontier.svg.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import prunus
from bench import fashion, store, training
from prunus.benchmark.engines import open_engine
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import speed_ratio, time_interleaved
from prunus.training.export import export_onnx

RESULTS = store.RESULTS / "frontier.jsonl"
PLOT = store.ROOT / "docs" / "frontier.svg"
NETWORK = "vgg"
COLOURS = {
    "bcr:8x64": "#0072b2", "punched:8x4": "#009e73", "punched:16x1": "#f0e442", "block-column:8x64": "#e69f00",
    "unstructured": "#cc79a7", "pattern:4": "#56b4e9", "filter": "#d55e00",
}  # fmt: skip
ACCURACY = "Fashion-MNIST test accuracy, %"
SIGNS = {"gradual": "o", "one-shot": "v", "admm": "s", "reweighted": "D"}


def measured() -> dict[str, store.Row]:
    """The pruned networks of seed 0 whose files are here, by key."""
    rows = store.latest(store.read(training.RESULTS)).values()
    mine = [row for row in rows if row.get("network") == NETWORK and row.get("seed") == 0]
    return {row["key"]: row for row in mine if training.file_of(row["key"]).exists()}


def time_all(rows: dict[str, store.Row], time_s: float) -> list[store.Row]:
    """A row per network, and one of the dense one by Prunus and by onnxruntime."""
    dense = training.KEPT / f"{NETWORK}-dense-0.onnx"
    model = fashion.NETWORKS[NETWORK]()
    model.load_state_dict(torch.load(training.KEPT / f"{NETWORK}-dense-0.pt", weights_only=True))
    x = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
    export_onnx(model, dense, torch.from_numpy(x))
    sessions = {key: prunus.compile(training.file_of(key), threads=1) for key in rows}
    sessions["dense"] = prunus.compile(dense, threads=1)
    peer = open_engine("onnxruntime", dense, Setting(1))
    calls: dict[str, Any] = {key: lambda s=session: s.run(None, {"x": x}) for key, session in sessions.items()}
    calls["onnxruntime"] = lambda: peer.run({"x": x})
    times = time_interleaved(calls, time_s, 0.2)
    accuracy = store.latest(store.read(training.RESULTS))[f"{NETWORK} dense seed 0"]["accuracy"]
    made = []
    for key, taken in times.items():
        ratio = speed_ratio(taken, times["onnxruntime"])
        about = {name: rows[key][name] for name in ("scheme", "sparsity", "method", "accuracy")} if key in rows else {
            "scheme": "dense", "sparsity": 0.0, "method": key, "accuracy": accuracy
        }  # fmt: skip
        made.append({
            "key": f"{NETWORK} {key}", **about, "ms": taken.median_s * 1e3,
            "times_onnxruntime": [ratio.lower, ratio.median, ratio.upper],
        })  # fmt: skip
    return made


def best(points: NDArray[np.float64]) -> list[int]:
    """Which (ms, accuracy) no other one beats in both, fastest first."""
    order = np.lexsort((-points[:, 1], points[:, 0]))
    chosen, top = [], -np.inf
    for i in order.tolist():
        if points[i, 1] > top:
            chosen.append(i)
            top = float(points[i, 1])
    return chosen


def of_time(axis: Any) -> None:
    """Milliseconds from left to right, a logarithmic axis."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="both", which="both", labelsize=8)
    axis.set_xlabel("ms for one image, one thread")
    axis.spines[["top", "right"]].set_visible(False)


def draw(rows: Sequence[store.Row], plot: Path = PLOT) -> None:
    """A mark per network, colour by scheme, shape by method; the line joins those that no other one beats."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    figure, axis = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for row in rows:
        colour = COLOURS.get(row["scheme"], "#000000")
        if row["scheme"] == "dense":
            sign, colour = "*", "#000000" if row["method"] == "dense" else "#999999"
            mine = row["method"] == "dense"  # one name above, one below: they are about as fast
            axis.annotate(
                f"dense, {'Prunus' if mine else 'onnxruntime'}", (row["ms"], 100 * row["accuracy"]),
                xytext=(8, 8 if mine else -14), textcoords="offset points", fontsize=8, ha="right",
            )  # fmt: skip
        else:
            sign = SIGNS[row["method"]]
        axis.plot(row["ms"], 100 * row["accuracy"], sign, color=colour, markersize=7, alpha=0.85)
    points = np.array([(row["ms"], 100 * row["accuracy"]) for row in rows])
    chain = points[best(points)]
    axis.plot(chain[:, 0], chain[:, 1], "-", color="#888888", linewidth=1, zorder=0)
    of_time(axis)
    axis.set_ylabel(ACCURACY)
    schemes = [name for name in COLOURS if any(row["scheme"] == name for row in rows)]
    methods = [name for name in SIGNS if any(row["method"] == name for row in rows)]
    marks = [Line2D([], [], linestyle="", marker="o", color=COLOURS[name], label=name) for name in schemes]
    marks += [Line2D([], [], linestyle="", marker=SIGNS[name], color="#444444", label=name) for name in methods]
    axis.legend(handles=marks, fontsize=8, loc="lower right", frameon=False, ncols=2)
    figure.savefig(plot, metadata={"Date": None} if plot.suffix == ".svg" else None)
    plt.close(figure)


def main() -> int:
    """Time what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=2.0, help="seconds of timed calls per network")
    options = parser.parse_args()
    rows = measured()
    if not rows:
        print(f"no networks in {training.KEPT}: run python -m bench.training first")
        return 1
    for row in time_all(rows, options.time):
        store.append(RESULTS, {**store.stamp(), "quick": False, **row})
        lower, median, upper = row["times_onnxruntime"]
        print(f"{row['key']:48} {row['ms']:.4f} ms, {median:.2f} ({lower:.2f} to {upper:.2f}) x, {row['accuracy']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
