"""prunus explore: what would I gain? Virtual sparsity, measured before any training."""

from typing import Annotated

import typer

from prunus.cli.options import InputShape, Json, OnnxModel, Quiet, Threads, Verbose, parse_shapes
from prunus.cli.output import Printer

EXAMPLE = "prunus explore model.onnx --schemes bcr:8x64,unstructured --sparsities 0.8,0.9"


def explore(
    model: OnnxModel,
    schemes: Annotated[
        str, typer.Option("--schemes", help="Schemes to try, separated by commas.")
    ] = "block-column:8x64,bcr:8x64,unstructured",
    sparsities: Annotated[
        str, typer.Option("--sparsities", help="Fractions of zeros to try, separated by commas.")
    ] = "0.7,0.8,0.9",
    threads: Threads = None,
    input_shape: InputShape = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure each layer with random masks, per scheme and sparsity: the gain before training."""
    from prunus.compiler.explore import explore as explore_model

    printer = Printer(quiet, json)
    fractions = [_fraction(text) for text in sparsities.split(",")]
    names = [name.strip() for name in schemes.split(",")]
    with printer.progress("explore") as step:
        rows = list(
            explore_model(
                model,
                schemes=names,
                sparsities=fractions,
                threads=threads,
                input_shapes=parse_shapes(input_shape),
                progress=step,
            )
        )
    columns = ("layer", "scheme", "sparsity", "ms", "dense ms", "times as fast")
    cells = [
        (
            row.layer, str(row.scheme), f"{row.sparsity:.3f}", f"{row.ms:.4f}",
            f"{row.dense_ms:.4f}", f"{row.dense_ms / row.ms:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    printer.table(columns, cells)
    sums: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        pair = sums.setdefault((str(row.scheme), round(row.sparsity, 3)), [0.0, 0.0])
        pair[0] += row.ms
        pair[1] += row.dense_ms
    for (scheme, sparsity), (ms, dense_ms) in sums.items():
        gain = f"{dense_ms / ms:.2f} times as fast as dense"
        printer.line(f"all layers, {scheme} at {sparsity:g}: {ms:.3f} ms, {gain}")
    printer.write_json({"model": str(model), "rows": rows})


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"--sparsities {text!r}: expected numbers, as 0.8,0.9") from error
