"""prunus compile: an ONNX file into an artefact that runs with numpy alone."""

import time
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.calibration import calibration_of
from prunus.cli.images import parse_scaling
from prunus.cli.layers import explain_table
from prunus.cli.options import (
    Bgr,
    Cc,
    InputShape,
    Json,
    Mean,
    OnnxModel,
    Precision,
    Quiet,
    Std,
    Strict,
    Target,
    Threads,
    Tune,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer, megabytes

EXAMPLE = "prunus compile model.onnx -o model.prunus"


def compile(
    model: OnnxModel,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Artefact to write. Default: MODEL as .prunus."),
    ] = None,
    target: Target = None,
    precision: Precision = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="int8: npz by input name, npy, or folder of images: a few batches."),
    ] = None,
    calibration_method: Annotated[
        str, typer.Option("--calibration-method", help="Ranges by: mse, percentile, min-max.")
    ] = "mse",
    error_budget: Annotated[
        float | None,
        typer.Option("--error-budget", help="Keep layers in fp32 until the relative error of the outputs is below it."),
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    threads: Threads = None,
    input_shape: InputShape = None,
    tune: Tune = "fast",
    strict: Strict = False,
    schedule: Annotated[Path | None, typer.Option("--schedule", help="Compute layers as this schedule says.")] = None,
    emit_schedule: Annotated[
        Path | None, typer.Option("--emit-schedule", help="Also write how each layer is computed, as YAML.")
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Recurrent layers keep their states from one run to the next.")
    ] = False,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile an ONNX file and write the artefact. It holds machine code."""
    from prunus.compiler.compile import compile as compile_model
    from prunus.compiler.schedule import schedule_text
    from prunus.runtime.atomic import write_atomically

    printer = Printer(quiet, json)
    output = output or model.with_suffix(".prunus")
    shapes = parse_shapes(input_shape)
    scaling = parse_scaling(mean, std, bgr)
    feeds = None if calibration is None else calibration_of(model, calibration, shapes or {}, scaling)
    start = time.perf_counter()
    with printer.progress("compile") as step:
        session = compile_model(
            model,
            target=target,
            precision=precision,
            calibration=feeds,
            calibration_method=calibration_method,
            error_budget=error_budget,
            threads=threads,
            input_shapes=shapes,
            tune=tune,
            fallback=None if strict else "onnxruntime",
            cc=cc,
            schedule=schedule,
            streaming=streaming,
            progress=step,
        )
        spent_s = time.perf_counter() - start
        session.save(output)
        if emit_schedule:
            write_atomically(emit_schedule, schedule_text(session.program, session.threads).encode())
    layers = session.explain()
    if verbose:
        explain_table(printer, layers)
    n_bytes = output.stat().st_size
    printer.line(f"{output}: {len(layers)} operators, {megabytes(n_bytes)} MB, compiled in {spent_s:.1f} s")
    printer.write_json({"output": str(output), "bytes": n_bytes, "compile_s": spent_s, "layers": layers})
