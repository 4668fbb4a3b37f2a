"""Schemes side by side at equal sparsity, and cost as work grows: sparsity, image size, batch, threads. ResNet-18.

    python -m bench.curves [--only TEXT ...] [--quick] [--again] [--list]

Prunus beside onnxruntime on the same file, in turns; a JSON line per point is appended to bench/results/curves.jsonl,
from which `python -m bench.report` draws docs/curves.svg. Random weights, all but the first convolution pruned. Pattern
pruning keeps four of nine positions and drops whole kernels, as PatDNN does; its layers without 3x3 kernels stay dense.
N:M is 1:16, so 94 % of the weights that it fits.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import store
from bench.measure import Case, race
from bench.tasks import Task, parse, run
from prunus.runtime.cpu import describe

RESULTS, PLOT = store.RESULTS / "curves.jsonl", store.ROOT / "docs" / "curves.svg"
SCHEMES = (
    "block-column:8x64", "block-row:8x64", "bcr:8x64", "bcr:16x128", "punched:8x4", "pattern:4", "filter", "channel",
    "1:16", "unstructured",
)  # fmt: skip
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
CURVES = ("block-column:8x64", "bcr:8x64", "unstructured")
GROWTH = (None, "block-column:8x64", "bcr:8x64")  # as the image, the batch, the threads grow
SIZES, BATCHES, MOST_THREADS = (64, 96, 128, 160, 224, 320), (1, 2, 4, 8, 16), 16
COLOURS = {
    "dense": "#e69f00", "block-column:8x64": "#0072b2", "bcr:8x64": "#009e73", "unstructured": "#cc79a7",
}  # fmt: skip
PANELS = ("schemes", "sparsity", "size", "batch", "threads")


@dataclass(frozen=True)
class Point:
    """A point of a panel; `at` is its place on the horizontal axis, None for a bar."""

    panel: str
    scheme: str | None
    at: float | None = None
    sparsity: float = 0.9

    @property
    def key(self) -> str:
        return f"{self.panel} {self.scheme or 'dense'}" + ("" if self.at is None else f" {self.at:g}")

    def case(self) -> Case:
        """What is measured: n:m says its own sparsity, and one of 0 is dense."""
        scheme = self.scheme if self.sparsity else None
        own = scheme is not None and scheme[0].isdigit()
        options = ((self.panel, int(self.at or 0)),) if self.panel in ("size", "batch") else ()
        threads = int(self.at or 1) if self.panel == "threads" else 1
        zeros = None if own else self.sparsity if scheme else 0.0
        return Case("resnet18", scheme, zeros, threads, peers=("onnxruntime",), options=options)


def points(cores: int) -> Iterator[Point]:
    """All points, for a machine of so many cores; two threads on any, for a core may run two."""
    for scheme in SCHEMES:
        yield Point("schemes", scheme)
    yield Point("sparsity", None, 0.0, 0.0)
    for scheme in CURVES:
        for sparsity in SPARSITIES:
            yield Point("sparsity", scheme, sparsity, sparsity)
    threads = [n for n in range(1, MOST_THREADS + 1) if n <= max(cores, 2) and n & (n - 1) == 0]
    for panel, values in (("size", SIZES), ("batch", BATCHES), ("threads", threads)):
        for grown in GROWTH:
            for value in values:
                yield Point(panel, grown, value)


def tasks() -> Iterator[Task]:
    for point in points(describe().physical_cores):
        case = point.case()
        about = {
            "panel": point.panel, "scheme": point.scheme or "dense", "at": point.at, "sparsity": case.sparsity,
            "threads": case.threads,
        }  # fmt: skip
        yield Task(point.key, about, lambda time_s, case=case: race(case, time_s))


def shown(rows: Sequence[store.Row]) -> list[store.Row]:
    """The points of the newest machine that has them all; see `store.of_one_machine`. The first rows that were kept
    have no keys, and say less about their machine."""
    full = []
    for row in rows:
        old = {"key": Point(row["panel"], row["scheme"], row.get("at")).key, "at": row.get("at"), "quick": False}
        machine = row["machine"] if "machine" in row else {**row["cpu"], "cores": row["cpu"]["physical_cores"]}
        full.append(old | row | {"machine": machine})
    found = store.of_one_machine(
        (row for row in full if not row["quick"]), lambda row: {p.key for p in points(row["machine"]["cores"])}
    )
    return list(found.values())


def draw(rows: Sequence[store.Row], plot: Path = PLOT) -> None:
    """All panels, as SVG (or what the suffix of `plot` says). The same rows give the same bytes."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.8), layout="constrained")
    by_panel = {panel: [row for row in rows if row["panel"] == panel] for panel in PANELS}
    _bars(axes[0, 0], by_panel["schemes"])
    labels = {
        "sparsity": "zeros in pruned layers", "size": "height and width of the image", "batch": "batch",
        "threads": "threads",
    }  # fmt: skip
    for axis, (panel, label) in zip(axes.flat[1:], labels.items(), strict=False):
        _curves(axis, by_panel[panel], panel, label)
    _legend(axes[1, 2], {row["scheme"] for panel in PANELS[1:] for row in by_panel[panel]})
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.savefig(plot, metadata={"Date": None} if plot.suffix == ".svg" else None)
    plt.close(figure)


def _bars(axis: Any, rows: list[store.Row]) -> None:
    """Each scheme's speed beside onnxruntime's on the same file, slowest at the bottom."""
    rows = sorted(rows, key=lambda row: -float(row["ms"]["prunus"]))
    names = [f"{row['scheme']} ({row['zeros']:.0%})" for row in rows]
    bars = axis.barh(names, [row["ms"]["onnxruntime"] / row["ms"]["prunus"] for row in rows], color="#0072b2")
    axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axis.set_title("schemes asked for 90 % (zeros of all weights)", fontsize=9)
    axis.set_xlabel("times as fast as onnxruntime", fontsize=8)


def _curves(axis: Any, rows: list[store.Row], panel: str, label: str) -> None:
    """A line per scheme of Prunus, and onnxruntime's of the dense network: it is as fast with zeros as without."""
    rates = panel in ("batch", "threads")
    axis.set_title("images a second" if rates else "ms", fontsize=9)
    axis.set_xlabel(label, fontsize=8)
    if not rows:
        axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes, fontsize=8)
        axis.set(xticks=[], yticks=[])
        return
    dense = [row for row in rows if row["at"] == 0]
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        own = sorted([row for row in rows if row["scheme"] == scheme], key=lambda row: float(row["at"]))
        if panel == "sparsity" and own[0]["at"] != 0:
            own = dense[:1] + own  # every curve begins at the dense network
        if len(own) > 1:
            axis.plot(*_line(own, panel, "prunus"), "-o", color=COLOURS[scheme], markersize=3, linewidth=1.3)
        if scheme == ("unstructured" if panel == "sparsity" else "dense"):
            axis.plot(*_line(own, panel, "onnxruntime"), "--", color="#555555", linewidth=1.3)
    ticks = sorted({row["at"] for row in rows})
    axis.set_xticks([_place(panel, at) for at in ticks], [f"{at:.0%}" if at < 1 else f"{at:g}" for at in ticks])
    if rates:
        axis.set_ylim(bottom=0)
    else:
        from matplotlib.ticker import LogLocator, NullLocator

        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")


def _line(rows: list[store.Row], panel: str, engine: str) -> tuple[list[float], list[float]]:
    """Places and values of an engine in a panel."""
    ms = [row["ms"][engine] for row in rows]
    if panel in ("batch", "threads"):
        images = [row["at"] if panel == "batch" else 1 for row in rows]
        ms = [1e3 * n / t for n, t in zip(images, ms, strict=True)]
    return [_place(panel, row["at"]) for row in rows], ms


def _place(panel: str, at: float) -> float:
    """Where a value is on the axis: sparsity by the logarithm of what is kept, batch and threads by theirs."""
    return -math.log2(1 - at) if panel == "sparsity" else at if panel == "size" else math.log2(at)


def _legend(axis: Any, schemes: set[str]) -> None:
    """What the lines of the other panels are."""
    axis.set_axis_off()
    for scheme, colour in COLOURS.items():
        if scheme in schemes:
            axis.plot([], [], "-o", color=colour, markersize=3, label=f"Prunus, {scheme}")
    axis.plot([], [], "--", color="#555555", label="onnxruntime, with zeros or without")
    title = "ResNet-18, one thread, 224 x 224, batch 1\nand 90 % zeros where the axis doesn't say"
    axis.legend(loc="center left", fontsize=9, frameon=False, title=title, title_fontsize=9, alignment="left")


def main() -> int:
    return run(tasks(), RESULTS, parse(__doc__, 1.0))


if __name__ == "__main__":
    sys.exit(main())
