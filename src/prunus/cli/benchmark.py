"""prunus benchmark: engines side by side, interleaved in one run."""

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.main import DONE, NO
from prunus.cli.options import (
    BatchSize,
    Cc,
    InputShape,
    Json,
    Precision,
    Quiet,
    Strict,
    Target,
    Threads,
    Tune,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer, megabytes, number

EXAMPLE = "prunus benchmark model.onnx --engines prunus,onnxruntime --threads 1 -t 3"


def benchmark(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX files, or artefacts (.prunus).")],
    engines: Annotated[
        str, typer.Option("--engines", help="Engines to race, separated by commas.")
    ] = "prunus,onnxruntime,openvino",
    time: Annotated[float, typer.Option("-t", "--time", min=0, help="Seconds timed per engine and model.")] = 5.0,
    warmup: Annotated[float, typer.Option("-w", "--warmup", min=0, help="Seconds before, per engine and model.")] = 1.0,
    threads: Threads = None,
    streams: Annotated[
        int, typer.Option("--streams", min=1, help="Callers at the same time, each with as many threads.")
    ] = 1,
    batch_size: BatchSize = None,
    input_shape: InputShape = None,
    target: Target = None,
    precision: Precision = "fp32",
    tune: Tune = "fast",
    strict: Strict = False,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Race engines on models with random inputs, interleaved, after comparing their outputs."""
    from prunus.benchmark.machine import describe_cpu
    from prunus.benchmark.race import benchmark as race
    from prunus.benchmark.race import peer_ratios
    from prunus.benchmark.sessions import Setting
    from prunus.runtime.session import check_threads
    from prunus.runtime.streams import check_streams

    printer = Printer(quiet, json)
    setting = Setting(
        check_threads(threads, streams), parse_shapes(input_shape) or {}, target, precision, tune,
        None if strict else "onnxruntime", cc, check_streams(streams),
    )  # fmt: skip
    names = [name.strip() for name in engines.split(",") if name.strip()]
    with printer.progress("benchmark") as step:
        result = race(models, names, setting, batch=batch_size, time_s=time, warmup_s=warmup, progress=step)
    for note in result.notes:
        printer.note(note)
    printer.write_json({"cpu": describe_cpu(), "result": result})
    if result.mismatches:
        for line in result.mismatches:
            printer.note(line)
        return NO
    cells = [
        (
            row.engine, row.model, number(row.median_ms), number(row.p90_ms), number(row.min_ms),
            number(row.per_second, 1),
            f"{row.ratio.median:.2f} ({row.ratio.lower:.2f}..{row.ratio.upper:.2f})"
            if row.ratio
            else "-",
            number(row.load_s, 2), number(row.compile_s, 1), megabytes(row.peak_bytes),
            "-" if row.error is None else f"{row.error:.0e}",
        )
        for row in result.rows
    ]  # fmt: skip
    printer.table(
        (
            "engine", "model", "median ms", "p90 ms", "min ms", "inferences/s", "times as fast (quartiles)",
            "load s", "compile s", "peak MB", "error",
        ),
        cells,
    )  # fmt: skip
    at_once = "" if result.streams == 1 else f", {result.streams} callers at the same time with as many each"
    printer.line(f"{result.threads} thread(s){at_once}; times as fast: against {result.baseline}")
    for own, other, ratio in peer_ratios(result):
        printer.line(
            f"{own.model}: prunus is {ratio.median:.2f} times as fast as {other.engine} "
            f"({ratio.lower:.2f}..{ratio.upper:.2f})"
        )
    return DONE
