"""What `prunus explore --blocks` shows: the block of each layer, as a table, a recipe's rules and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.cli.output import Printer, number
from prunus.cli.pictures import new_figure, save

if TYPE_CHECKING:
    from matplotlib.patches import Patch

    from prunus.compiler.blocks import BlockChoice


def show(printer: Printer, choices: "Sequence[BlockChoice]") -> None:
    """The table, and what the choice costs in all."""
    printer.table(
        ("layer", "like it", "block", "ms", "fastest", "ms", "dense ms", "times as fast"),
        [
            (
                c.layer, str(c.count), c.scheme or "dense", number(c.ms, 4), c.best or "-", number(c.best_ms, 4),
                number(c.dense_ms, 4), number(c.dense_ms / c.ms if c.ms else None, 2),
            )
            for c in choices
        ],
    )  # fmt: skip
    chosen = sum(c.count * (c.ms or c.dense_ms) for c in choices)
    fastest = sum(c.count * min(c.best_ms or c.dense_ms, c.dense_ms) for c in choices)
    dense = sum(c.count * c.dense_ms for c in choices)
    printer.line(f"all layers: {dense:.3f} ms dense, {chosen:.3f} with these blocks, {fastest:.3f} with the fastest")


def picture(path: Path, choices: "Sequence[BlockChoice]", title: str) -> None:
    """Write a heat map (SVG or PNG, by the name): a layer's time by block, relative to its best; chosen blocks framed.

    Raises OutputError: it can't be written.
    """
    measured = [c for c in choices if c.times]
    schemes = list(dict.fromkeys(scheme for c in measured for scheme in c.times))
    table = [[c.times.get(s, float("nan")) / min(c.times.values()) for s in schemes] for c in measured]
    size = (2.5 + 0.42 * max(len(schemes), 4), 1.8 + 0.28 * max(len(measured), 2))
    figure = new_figure(size)
    axes = figure.subplots()
    image = axes.imshow(table or [[1.0]], cmap="viridis_r", vmin=1, vmax=3, aspect="auto")
    axes.set_xticks(range(len(schemes)), [s.partition(":")[2] for s in schemes], rotation=90)
    axes.set_yticks(range(len(measured)), [f"{c.layer} ({c.count})" if c.count > 1 else c.layer for c in measured])
    for y, choice in enumerate(measured):
        if choice.scheme is not None:
            axes.add_patch(_frame(schemes.index(choice.scheme), y))
    axes.set_title(title)
    axes.set_xlabel("block, rows x columns")
    figure.colorbar(image, label="time over the layer's best", extend="max")
    save(path, figure)


def _frame(x: int, y: int) -> "Patch":
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="crimson", linewidth=2)
