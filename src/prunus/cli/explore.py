"""prunus explore: what would I gain? Virtual sparsity, measured before any training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli import frontier as frontier_view
from prunus.cli.blocks import picture, show
from prunus.cli.heat import heat_map
from prunus.cli.images import parse_scaling
from prunus.cli.options import (
    Bgr,
    Cc,
    InputShape,
    Json,
    Mean,
    OnnxModel,
    Quiet,
    Std,
    Target,
    Threads,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer, number
from prunus.cli.pictures import check_drawable
from prunus.errors import ModelError
from prunus.runtime.atomic import check_writable

if TYPE_CHECKING:
    from prunus.compiler.explore import ExploreRow

EXAMPLE = "prunus explore model.onnx --schemes bcr:8x64,unstructured --sparsities 0.8,0.9"


def explore(
    model: OnnxModel,
    schemes: Annotated[
        str, typer.Option("--schemes", help="Schemes to try, separated by commas.")
    ] = "block-column:8x64,bcr:8x64,unstructured",
    sparsities: Annotated[
        str, typer.Option("--sparsities", help="Fractions of zeros to try, separated by commas.")
    ] = "0.7,0.8,0.9",
    blocks: Annotated[
        str | None,
        typer.Option(
            "--blocks",
            metavar="FAMILY",
            help="Instead of schemes: the smallest block of bcr, block-row, block-column or punched per layer that is "
            "about as fast as the best; at the last of --sparsities.",
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Of --blocks: 0.1 is a tenth slower than the best.")
    ] = 0.1,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Picture to write, SVG or PNG by its name: a heat map.")
    ] = None,
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            help="Picture to write, SVG or PNG: accuracy against time of the best plans, as `map` has them.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Of --frontier, for accuracies: npz with x and y, or a folder of images per class. Without "
            "it the sum of sensitivities.",
        ),
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    threads: Threads = None,
    input_shape: InputShape = None,
    target: Target = None,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure each layer with random masks, per scheme and sparsity: the gain before training."""
    from prunus.compiler.blocks import candidates, choose_blocks
    from prunus.compiler.explore import explore as explore_model

    printer = Printer(quiet, json)
    for name, path in (("plot", plot), ("frontier", frontier)):
        if path is not None and path.suffix.lower() not in (".svg", ".png"):
            raise typer.BadParameter(f"--{name} {path}: expected a name in .svg or .png")
        if path is not None:
            check_drawable(f"--{name}")
            check_writable(path)
    if data is not None and frontier is None:
        raise typer.BadParameter("--data needs --frontier")
    if blocks is not None and frontier is not None:
        raise typer.BadParameter("--blocks and --frontier: expected one of the two")
    scaling = parse_scaling(mean, std, bgr)
    fractions = [_fraction(text) for text in sparsities.split(",")]
    names = [name.strip() for name in schemes.split(",")]
    if blocks is not None:
        fractions, names = fractions[-1:], candidates(blocks)
    points, shapes = None, parse_shapes(input_shape)
    with printer.progress("explore") as step:
        if frontier is not None:
            points = frontier_view.points_of(model, data, scaling, threads, shapes, target, cc, step)
        rows = list(
            explore_model(
                model,
                schemes=names,
                sparsities=fractions,
                threads=threads,
                input_shapes=shapes,
                target=target,
                cc=cc,
                progress=step,
            )
        )
    if not rows:
        raise ModelError(f"{model}: no layer to explore: expected an ungrouped Conv, Gemm, MatMul, GRU or LSTM")
    if blocks is not None:
        choices = choose_blocks(rows, tolerance)
        show(printer, choices)
        if plot is not None:
            picture(plot, choices, f"{model.name}: {blocks} at {fractions[0]:g}")
        printer.write_json({"model": str(model), "tolerance": tolerance, "choices": choices, "rows": rows})
        return
    printer.table(
        ("layer", "like it", "scheme", "sparsity", "ms", "dense ms", "times as fast", "note"),
        [
            (
                row.layer, str(row.count), row.scheme, f"{row.achieved:.3f}", number(row.ms, 4),
                number(row.dense_ms, 4), number(row.dense_ms / row.ms if row.ms else None, 2), row.note,
            )
            for row in rows
        ],
    )  # fmt: skip
    if plot is not None:
        heat_map(plot, rows, model.name)
    for line in sums(rows):
        printer.line(line)
    if points is not None and frontier is not None:
        frontier_view.show(printer, points)
        frontier_view.picture(frontier, points, f"{model.name}: what it could have")
    printer.write_json({"model": str(model), "rows": rows, **({"frontier": points} if points else {})})


def sums(rows: "Sequence[ExploreRow]") -> list[str]:
    """A line per scheme and sparsity: time of all layers that take it, against the same ones dense."""
    spent: dict[tuple[str, float], dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row.ms is not None:
            layers = spent.setdefault((row.scheme, row.sparsity), {})
            layers[row.layer] = (row.ms * row.count, row.dense_ms * row.count)
    lines = []
    for (scheme, sparsity), layers in spent.items():
        ms, dense_ms = (sum(column) for column in zip(*layers.values(), strict=True))
        lines.append(
            f"layers that take {scheme} at {sparsity:g}: {dense_ms:.3f} -> {ms:.3f} ms, "
            f"{dense_ms / ms:.2f} times as fast"
        )
    return lines


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"--sparsities {text!r}: expected numbers, as 0.8,0.9") from error
