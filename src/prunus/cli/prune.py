"""prunus prune: pruning of an ONNX file, without data or with a few hundred unlabelled inputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.calibration import calibration_of
from prunus.cli.images import parse_scaling
from prunus.cli.options import (
    Bgr,
    InputShape,
    Json,
    Mean,
    OnnxModel,
    Precision,
    Quiet,
    Std,
    Target,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer
from prunus.errors import RuleError
from prunus.runtime.atomic import write_atomically

if TYPE_CHECKING:
    from prunus.sparsity.scheme import Scheme
    from prunus.training.reconstruct.network import LayerError

MOST = 1024  # images of a folder that are taken
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
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="plan.yaml as `prunus map` writes it, in place of --scheme and --sparsity."),
    ] = None,
    precision: Precision = "fp32",
    target: Target = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Unlabelled inputs to refit what stays: npz by input name, npy, or folder of images. A few hundred.",
        ),
    ] = None,
    distil: Annotated[
        int | None,
        typer.Option(
            "--distil", min=0, help="Epochs of distillation over the calibration data after that. Default: 0."
        ),
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    input_shape: InputShape = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prune the layers of an ONNX file: by magnitude without data, by reconstruction with calibration data."""
    from prunus.pruning.one_shot import prune_by_rules, prune_layers
    from prunus.pruning.preferred import preferred_scheme

    printer = Printer(quiet, json)
    choices = None if plan is None else _choices(plan, scheme=scheme, sparsity=sparsity, calibration=calibration)
    scheme = scheme or preferred_scheme(precision, target)
    ignored = tuple(ignore or ())
    errors: list[LayerError] = []
    if calibration is None and distil is not None:
        raise typer.BadParameter("--distil needs --calibration")
    shapes, scaling = parse_shapes(input_shape) or {}, parse_scaling(mean, std, bgr)
    feeds = None if calibration is None else calibration_of(model, calibration, shapes, scaling, MOST)
    with printer.progress("prune") as step:
        if choices is not None:
            rules = [(name, None) for name in ignored] + choices
            try:
                result = prune_by_rules(model, rules, report=lambda layer: step(layer.name))
            except RuleError as error:
                raise RuleError(f"{plan}: {error}; expected a plan of {model}") from error
        elif feeds is None:
            result = prune_layers(model, scheme, sparsity, ignored, report=lambda layer: step(layer.name))
        else:
            from prunus.training.reconstruct.network import Options
            from prunus.training.reconstruct.onnx_file import reconstruct_onnx

            made = reconstruct_onnx(
                model, scheme, sparsity, ignored, feeds, Options(distil=distil or 0), input_shapes=shapes, report=step
            )
            result, errors = made.result, list(made.errors)
    write_atomically(output, result.model.SerializeToString())
    by_weight = {error.layer.weight: error for error in errors}
    printer.table(
        ("layer", "weights", "scheme", "sparsity", *(("magnitude", "error") if errors else ()), "note"),
        [
            (
                layer.name, "x".join(map(str, layer.shape)) or "-",
                str(layer.scheme) if layer.scheme else "-", f"{layer.sparsity:.4f}",
                *(_errors(by_weight.get(layer.weight)) if errors else ()), layer.note,
            )
            for layer in result.layers
        ],
    )  # fmt: skip
    printer.line(f"{output}: {result.sparsity:.4f} of the pruned layers' weights are zero")
    layers = [
        {
            "name": layer.name, "weight": layer.weight, "shape": layer.shape,
            "scheme": str(layer.scheme) if layer.scheme else None,
            "sparsity": layer.sparsity, "note": layer.note,
            **_as_json(by_weight.get(layer.weight)),
        }
        for layer in result.layers
    ]  # fmt: skip
    printer.write_json({"output": str(output), "sparsity": result.sparsity, "layers": layers})


def _choices(plan: Path, **others: object) -> "list[tuple[str, tuple[Scheme, float | None] | None]]":
    """What a plan says of each layer; options that say something else are refused."""
    from prunus.training.plan import read_plan

    for name, value in others.items():
        if value is not None:
            raise typer.BadParameter(f"--plan and --{name}: expected one of the two")
    return read_plan(plan).choices()


def _errors(error: "LayerError | None") -> tuple[str, str]:
    """Relative errors of a layer's outputs: pruned by magnitude, and reconstructed."""
    return ("-", "-") if error is None else (f"{error.magnitude:.4f}", f"{error.reconstructed:.4f}")


def _as_json(error: "LayerError | None") -> dict[str, float]:
    return {} if error is None else {"magnitude_error": error.magnitude, "error": error.reconstructed}
