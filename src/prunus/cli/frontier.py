"""`prunus explore --frontier`: accuracy, or without data sensitivities, against time, as a table and a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.cli.map_search import prepare
from prunus.cli.output import Printer, number
from prunus.cli.pictures import new_figure, save

if TYPE_CHECKING:
    from prunus.mapping.frontier import Point
    from prunus.pruning.images import Scaling

STEPS = 40  # of retraining for each point


def points_of(
    model: Path, data: Path | None, scaling: "Scaling", threads: int | None,
    shapes: dict[str, tuple[int, ...]] | None, target: str | None, cc: str | None, step: Callable[[object], None],
) -> "list[Point]":  # fmt: skip
    """Measure what there is to choose from, and choose. Raises as `map` does."""
    from prunus.mapping.frontier import frontier_of, space_to_explore
    from prunus.mapping.network import read_network
    from prunus.mapping.options import sources_of
    from prunus.mapping.rules import Terms

    network = read_network(model, threads=threads, input_shapes=shapes, target=target, cc=cc)
    prepared = None if data is None else prepare(network, data, None, scaling)
    space = space_to_explore(sources_of(network, {}, step), Terms())
    if prepared is None:
        return frontier_of(space, progress=step)
    from prunus.mapping.evaluate import Effort, Evaluator

    return frontier_of(space, Evaluator(prepared.module, space, prepared.samples, Effort(steps=STEPS)), progress=step)


def show(printer: Printer, points: "Sequence[Point]") -> None:
    """A row per point, dense first."""
    printer.table(
        ("frontier, ms", "times as fast", "zeros", "sensitivities", "accuracy"),
        [
            (
                f"{p.ms:.4g}", number(p.dense_ms / p.ms, 2), number(p.zeros, 3), number(p.loss, 4),
                "-" if p.accuracy is None else f"{p.accuracy:.2%}",
            )
            for p in points
        ],
    )  # fmt: skip


def picture(path: Path, points: "Sequence[Point]", title: str) -> None:
    """Write a line (SVG or PNG, by the name): time to the right; upwards accuracy, else fewer sensitivities.

    Raises OutputError: it can't be written.
    """
    figure = new_figure((6, 4))
    from matplotlib.ticker import NullFormatter

    axes = figure.subplots()
    trained = all(point.accuracy is not None for point in points)
    heights = [100 * (p.accuracy or 0.0) if trained else p.loss for p in points]
    axes.plot([p.ms for p in points], heights, marker="o")
    for point, height in zip(points, heights, strict=True):
        axes.annotate(f"{point.dense_ms / point.ms:.2g}x", (point.ms, height), (4, -11), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xticks([p.ms for p in points[::2]], [f"{p.ms:.3g}" for p in points[::2]])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ms, predicted, on a logarithmic scale")
    axes.set_ylabel(
        "accuracy after a quick retraining, %" if trained else "sum of sensitivities, no data: less is better"
    )
    if not trained:
        axes.invert_yaxis()
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    axes.set_title(title)
    save(path, figure)
