"""Options that several verbs share, spelled alike everywhere, and what their texts mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file (.onnx), or artefact (.prunus).")]
OnnxModel = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Default: all physical cores.")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=DIMS",
        help="Shape of an input, as x=1,3,224,224. May be repeated.",
    ),
]
BatchSize = Annotated[int | None, typer.Option("-b", "--batch-size", min=1, help="Value of a symbolic batch.")]
Target = Annotated[
    str | None,
    typer.Option("--target", help="What to compile for, as x86-64-avx2. Default: this CPU."),
]
Precision = Annotated[str, typer.Option("--precision", help="fp32, bf16, int8.")]
Mean = Annotated[str, typer.Option("--mean", help="Images: value = (pixel 0..255 - mean) / std.")]
Std = Annotated[str, typer.Option("--std", help="One number, or one per channel.")]
Bgr = Annotated[bool, typer.Option("--bgr", help="Images: blue first.")]
Tune = Annotated[str, typer.Option("--tune", help="How long to measure kernel variants: off, fast, full.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse operators that would have to run in onnxruntime, and layers that the precision can't have.",
    ),
]
Cc = Annotated[
    str | None,
    typer.Option("--cc", help="C compiler to use. Default: PRUNUS_CC, else the packaged clang."),
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write what the table shows; - for stdout."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print no table and no progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print more; on an internal error, where.")]


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]] | None:
    """{"x": (1, 3, 224, 224)} of ["x=1,3,224,224"]; None of none.

    Raises BadParameter: not of that form, or a name twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, equals, dims = text.rpartition("=")
        numbers = [part.strip() for part in dims.split(",")]
        if not (equals and name and all(n.isdecimal() and int(n) > 0 for n in numbers)):
            raise typer.BadParameter(f"--input-shape {text!r}: expected NAME=DIMS, as x=1,3,224,224")
        if name in shapes:
            raise typer.BadParameter(f"--input-shape {text!r}: {name} has a shape already")
        shapes[name] = tuple(int(n) for n in numbers)
    return shapes or None
