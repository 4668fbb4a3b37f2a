"""prunus profile: where the time of a network goes."""

from prunus.cli.layers import explain_table, profile_table
from prunus.cli.options import (
    BatchSize,
    Cc,
    InputShape,
    Json,
    Model,
    Quiet,
    Strict,
    Threads,
    Tune,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer
from prunus.cli.session import open_model

EXAMPLE = "prunus profile model.onnx --threads 1"


def profile(
    model: Model,
    threads: Threads = None,
    batch_size: BatchSize = None,
    input_shape: InputShape = None,
    tune: Tune = "fast",
    strict: Strict = False,
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Time each layer with random inputs: milliseconds, GFLOP/s of kept weights, share of peak."""
    from prunus.benchmark.feeds import random_feeds, resolve_shapes

    printer = Printer(quiet, json)
    given = parse_shapes(input_shape) or {}
    session = open_model(printer, model, threads, given, tune=tune, strict=strict, cc=cc)
    ports = session.get_inputs()
    shapes = resolve_shapes(ports, given, batch_size, str(model))
    rows = session.profile(random_feeds(ports, shapes, seed=0))
    explained = session.explain() if verbose else []
    profile_table(printer, rows)
    if verbose:
        explain_table(printer, explained)
    printer.write_json({"model": str(model), "threads": session.threads, "inputs": shapes, "rows": rows})
