"""prunus demo: train, prune, compile, compare, on real images or speech."""

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.options import Cc, Json, Quiet, Threads, Verbose
from prunus.cli.output import Printer, megabytes, number
from prunus.errors import RuleError

EXAMPLE = "prunus demo --output out/demo"


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder for models, picture and a JSON. Default: out/demo, out/demo-speech."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="mnist or fashion. Default: fashion where installed."),
    ] = None,
    speech: Annotated[
        bool, typer.Option("--speech", help="A GRU on spoken digits, frame by frame, in place of a CNN on images.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch on few data: shows the way, no accuracy.")] = False,
    threads: Threads = None,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a small CNN, or with --speech a GRU, prune it to 90 %, compile it, and compare with ONNX Runtime."""
    printer = Printer(quiet, json)
    if speech:
        if data is not None:
            raise RuleError(f"--data {data}: names images, expected none with --speech")
        _speech(printer, output or Path("out/demo-speech"), quick, threads, cc)
    else:
        _images(printer, output or Path("out/demo"), quick, data, threads, cc)


def _images(printer: Printer, output: Path, quick: bool, data: str | None, threads: int | None, cc: str | None) -> None:
    from prunus.demo.story import Plan, run_demo

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


def _speech(printer: Printer, output: Path, quick: bool, threads: int | None, cc: str | None) -> None:
    from prunus.demo.speech.story import Plan, run_speech

    with printer.progress("demo") as step:
        story = run_speech(output, Plan.quick() if quick else Plan(), threads, cc, step)
    printer.table(
        ("model", "sparsity", "accuracy", "ONNX MB", "artefact MB", "Prunus us/frame", "ORT us/frame"),
        [
            (
                row.name, f"{row.sparsity:.3f}", f"{row.accuracy:.2%}", megabytes(row.onnx_bytes),
                megabytes(row.artefact_bytes), number(row.prunus_us, 1), number(row.onnxruntime_us, 1),
            )
            for row in story.rows
        ],
    )  # fmt: skip
    printer.line(f"one layer's mask ({story.mask_layer}; gates down, states across):")
    printer.line(story.mask_picture)
    printer.line(f"a {story.digit}, and what it is taken for after each frame:")
    printer.line(" ".join(map(str, story.heard)))
    for line in story.summary:
        printer.line(line)
    printer.line(f"models, picture and speech.json: {output}")
    printer.write_json(story)
