"""prunus explore: what would I gain? Virtual sparsity, measured before any training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.blocks import picture, show
from prunus.cli.heat import heat_map
from prunus.cli.options import Cc, InputShape, Json, OnnxModel, Quiet, Target, Threads, Verbose, parse_shapes
from prunus.cli.output import Printer, number

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
    if plot is not None and plot.suffix.lower() not in (".svg", ".png"):
        raise typer.BadParameter(f"--plot {plot}: expected a name in .svg or .png")
    fractions = [_fraction(text) for text in sparsities.split(",")]
    names = [name.strip() for name in schemes.split(",")]
    if blocks is not None:
        fractions, names = fractions[-1:], candidates(blocks)
    with printer.progress("explore") as step:
        rows = list(
            explore_model(
                model,
                schemes=names,
                sparsities=fractions,
                threads=threads,
                input_shapes=parse_shapes(input_shape),
                target=target,
                cc=cc,
                progress=step,
            )
        )
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
    printer.write_json({"model": str(model), "rows": rows})


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
