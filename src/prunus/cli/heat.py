"""The picture of `prunus explore`: layers by scheme and sparsity, and how many times as fast as dense each is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.cli.pictures import new_figure, save

if TYPE_CHECKING:
    from prunus.compiler.explore import ExploreRow

LARGEST_GAIN = 16.0  # of the colours; more looks alike


def heat_map(path: Path, rows: "Sequence[ExploreRow]", title: str) -> None:
    """Write a heat map (SVG or PNG, by the name): white as fast as dense, red slower, blue faster; grey where a layer
    can't have the scheme.

    Raises OutputError: it can't be written.
    """

    layers = list(dict.fromkeys(row.layer for row in rows))
    columns = list(dict.fromkeys((row.scheme, row.sparsity) for row in rows))
    counts = {row.layer: row.count for row in rows}
    table = [[float("nan")] * len(columns) for _ in layers]
    for row in rows:
        if row.ms:
            table[layers.index(row.layer)][columns.index((row.scheme, row.sparsity))] = row.dense_ms / row.ms
    size = (3.0 + 0.42 * max(len(columns), 4), 2.2 + 0.28 * max(len(layers), 2))
    figure = new_figure(size)
    from matplotlib.colors import LogNorm

    axes = figure.subplots()
    axes.set_facecolor("0.85")
    norm = LogNorm(1 / LARGEST_GAIN, LARGEST_GAIN)
    image = axes.imshow(table or [[1.0]], cmap="RdBu", norm=norm, aspect="auto")
    axes.set_xticks(range(len(columns)), [f"{scheme} {sparsity:g}" for scheme, sparsity in columns], rotation=90)
    axes.set_yticks(range(len(layers)), [f"{name} ({counts[name]})" if counts[name] > 1 else name for name in layers])
    axes.set_title(title)
    bar = figure.colorbar(image, label="times as fast as dense", extend="both")
    bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
    save(path, figure)
