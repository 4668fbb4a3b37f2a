"""prunus run: a network on arrays or images from files."""

import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from prunus.cli.images import parse_scaling
from prunus.cli.inputs import read_feeds
from prunus.cli.options import (
    Bgr,
    Cc,
    InputShape,
    Json,
    Mean,
    Model,
    Quiet,
    Std,
    Strict,
    Threads,
    Tune,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer
from prunus.cli.session import open_model
from prunus.errors import OutputError
from prunus.runtime.atomic import write_atomically

EXAMPLE = "prunus run model.onnx x.npy -o result.npz"


def run(
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="FILE or NAME=FILE: npy, npz with arrays by input name, or image.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="npz (all outputs by name) or npy (the only one)."),
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    threads: Threads = None,
    input_shape: InputShape = None,
    tune: Tune = "off",
    strict: Strict = False,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a network; without --output, print the five largest values of each result."""
    from prunus.benchmark.feeds import resolve_shapes

    printer = Printer(quiet, json)
    scaling = parse_scaling(mean, std, bgr)
    if output is not None and output.suffix not in (".npy", ".npz"):
        raise OutputError(f"{output}: expected a name that ends in .npz or .npy")
    given = parse_shapes(input_shape) or {}
    session = open_model(printer, model, threads, given, tune=tune, strict=strict, cc=cc)
    ports = session.get_inputs()
    shapes = resolve_shapes(ports, given, model=str(model))
    feeds = read_feeds(inputs, ports, shapes, scaling)
    names = [port.name for port in session.get_outputs()]
    results = dict(zip(names, session.run(None, feeds), strict=True))
    if output is not None:
        _write(output, results)
        for name, array in results.items():
            printer.line(f"{output}: {name} {array.dtype}{list(array.shape)}")
    else:
        for name, array in results.items():
            printer.line(f"{name} {array.dtype}{list(array.shape)}")
            printer.table(("item", "top 5: index value"), top_rows(array))
    printer.write_json(results)


def top_rows(array: NDArray[Any], count: int = 5) -> list[tuple[str, str]]:
    """For each item of the leading dimension, at most 8, its largest values by index."""
    items = array.reshape(len(array), -1) if array.ndim > 1 and array.size else array.reshape(1, -1)
    rows = []
    for i, values in enumerate(items[:8]):
        order = np.argsort(-values.astype(np.float64), kind="stable")[:count]
        rows.append((str(i), "  ".join(f"{k} {values[k]:.6g}" for k in order)))
    return rows


def _write(path: Path, results: dict[str, NDArray[Any]]) -> None:
    stream = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(stream, **results)  # type: ignore[arg-type]  # names come from the model
    elif len(results) == 1:
        np.save(stream, next(iter(results.values())))
    else:
        raise OutputError(f"{path}: {len(results)} outputs, expected a name that ends in .npz")
    write_atomically(path, stream.getbuffer())
