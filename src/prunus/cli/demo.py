"""prunus demo: train, prune, compile, compare, on real images."""

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.options import Cc, Json, Quiet, Threads, Verbose
from prunus.cli.output import Printer, megabytes, number

EXAMPLE = "prunus demo --output out/demo"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for models, picture and demo.json.")] = Path(
        "out/demo"
    ),
    data: Annotated[
        str | None,
        typer.Option("--data", help="mnist or fashion. Default: fashion where installed."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One epoch on few images: shows the way, no accuracy.")
    ] = False,
    threads: Threads = None,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a small CNN, prune it to 90 %, compile it, and compare with ONNX Runtime."""
    from prunus.demo.story import Plan, run_demo

    printer = Printer(quiet, json)
    with printer.progress("demo") as step:
        story = run_demo(output, Plan.quick() if quick else Plan(), data, threads, cc, step)
    printer.table(
        ("model", "sparsity", "accuracy", "ONNX MB", "artefact MB", "Prunus ms", "ORT ms"),
        [
            (
                row.name, f"{row.sparsity:.3f}", f"{row.accuracy:.2%}", megabytes(row.onnx_bytes),
                megabytes(row.artefact_bytes), number(row.prunus_ms), number(row.onnxruntime_ms),
            )
            for row in story.rows
        ],
    )  # fmt: skip
    printer.line(f"one layer's mask ({story.mask_layer}; filters down, weights across):")
    printer.line(story.mask_picture)
    for line in story.summary:
        printer.line(line)
    printer.line(f"models, picture and demo.json: {output}")
    printer.write_json(story)
