"""prunus prune: one-shot pruning of an ONNX file, without data."""

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.options import Json, OnnxModel, Precision, Quiet, Target, Verbose
from prunus.cli.output import Printer
from prunus.runtime.atomic import write_atomically

EXAMPLE = "prunus prune model.onnx -o sparse.onnx --scheme bcr:8x64 --sparsity 0.9"


def prune(
    model: OnnxModel,
    output: Annotated[Path, typer.Option("-o", "--output", help="Pruned ONNX file to write.")],
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            help="unstructured, 2:4, filter, channel, pattern:4, punched:8x4, "
            "block-row:8x64, block-column:8x64 or bcr:8x64. Default: what precision and target like.",
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", help="Fraction of zeros in each layer, as 0.9."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", help="Layer that stays dense: its name, or re:PATTERN."),
    ] = None,
    precision: Precision = "fp32",
    target: Target = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prune the layers of an ONNX file by magnitude, without data."""
    from prunus.pruning.one_shot import prune_layers
    from prunus.pruning.preferred import preferred_scheme

    printer = Printer(quiet, json)
    scheme = scheme or preferred_scheme(precision, target)
    with printer.progress("prune") as step:
        result = prune_layers(model, scheme, sparsity, tuple(ignore or ()), report=lambda layer: step(layer.name))
    write_atomically(output, result.model.SerializeToString())
    rows = [
        (
            layer.name, "x".join(map(str, layer.shape)) or "-",
            str(layer.scheme) if layer.scheme else "-", f"{layer.sparsity:.4f}", layer.note,
        )
        for layer in result.layers
    ]  # fmt: skip
    printer.table(("layer", "weights", "scheme", "sparsity", "note"), rows)
    printer.line(f"{output}: {result.sparsity:.4f} of the pruned layers' weights are zero")
    layers = [
        {
            "name": layer.name, "weight": layer.weight, "shape": layer.shape,
            "scheme": str(layer.scheme) if layer.scheme else None,
            "sparsity": layer.sparsity, "note": layer.note,
        }
        for layer in result.layers
    ]  # fmt: skip
    printer.write_json({"output": str(output), "sparsity": result.sparsity, "layers": layers})
