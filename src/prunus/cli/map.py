"""prunus map: which scheme and sparsity for which layer, for a budget; writes plan.yaml."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.calibration import calibration_of
from prunus.cli.images import parse_scaling
from prunus.cli.map_search import Search, check_search, prepare, search_plan
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
    Target,
    Threads,
    Verbose,
    parse_shapes,
)
from prunus.cli.output import Printer, number
from prunus.errors import OutputError, RecipeError, TargetError
from prunus.runtime.atomic import check_writable, write_atomically

if TYPE_CHECKING:
    from prunus.mapping.plan import Plan

MOST = 32  # batches of calibration data that are taken
EXAMPLE = "prunus map model.onnx --target-latency 8ms -o plan.yaml"


def map(
    model: OnnxModel,
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan to write, as YAML.")] = Path("plan.yaml"),
    target_latency: Annotated[
        str | None, typer.Option("--target-latency", metavar="TIME", help="Time of an inference to reach, as 8ms.")
    ] = None,
    speedup: Annotated[
        str | None,
        typer.Option("--speedup", metavar="FACTOR", help="Times as fast as the network without zeros, as 5 or 5x."),
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option("--sparsity", help="Share of zeros over all layers that can be pruned, as 0.9.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="rules: the paper's, then exact among what they leave. exact: of everything. search (REINFORCE), tpe, "
            "nsga2 (Optuna): by trial, with --data.",
        ),
    ] = "rules",
    data: Annotated[
        Path | None, typer.Option("--data", help="To search with: npz with x and y, or a folder of images per class.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Mappings that a search tries.")] = 300,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Of retraining in each trial.")] = 40,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="URL", help="Where tpe and nsga2 keep trials, for several processes: sqlite:///t.db."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of a search; give each process its own.")] = 0,
    difficulty: Annotated[
        str, typer.Option("--difficulty", help="Of the data set, for rules on 3x3: easy (punched), hard (pattern).")
    ] = "easy",
    beta: Annotated[
        float, typer.Option("--beta", min=0, help="A block may be slower than whole filters by this share.")
    ] = 0.15,
    ends: Annotated[bool, typer.Option("--ends", help="Prune the first and the last layer too.")] = False,
    check: Annotated[
        int, typer.Option("--check", min=0, metavar="N", help="Measure N interpolated times anew and print the error.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure times again that were kept, as those from a busy machine.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Inputs for sensitivities and int8's ranges: npz by input name, npy, or folder of images.",
        ),
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    threads: Threads = None,
    input_shape: InputShape = None,
    target: Target = None,
    precision: Precision = "fp32",
    cc: Cc = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Choose scheme, block and sparsity per layer for a budget, before any training."""
    from prunus.mapping.accuracy import check_table
    from prunus.mapping.network import read_network
    from prunus.mapping.options import sources_of
    from prunus.mapping.plan import METHODS, SEARCHES, check_searchable, make_plan, parse_budget, plan_text
    from prunus.mapping.rules import DIFFICULTIES, Terms
    from prunus.mapping.sensitivity import measure_gains

    printer = Printer(quiet, json)
    budget = parse_budget(target_latency, speedup, sparsity)
    if method not in (*METHODS, *SEARCHES):
        raise RecipeError(f"--method {method!r}: expected one of {', '.join((*METHODS, *SEARCHES))}")
    if difficulty not in DIFFICULTIES:
        raise RecipeError(f"--difficulty {difficulty!r}: expected one of {', '.join(DIFFICULTIES)}")
    search = Search(data, trials, steps, storage, seed, output.with_suffix(".search"))
    check_search(method, search)
    check_searchable(budget, method)
    check_writable(output)
    if output.resolve() == model.resolve():
        raise OutputError(f"{output}: is the model, expected another file for the plan")
    shapes, scaling = parse_shapes(input_shape) or {}, parse_scaling(mean, std, bgr)
    feeds = None
    if calibration is not None:
        feeds = list(calibration_of(model, calibration, shapes, scaling, MOST) or ())
    with printer.progress("map") as step:
        network = read_network(
            model, precision=precision, calibration=feeds, threads=threads, input_shapes=shapes or None, target=target,
            cc=cc, fresh=fresh,
        )  # fmt: skip
        if check and not network.here:
            raise TargetError(f"--check with target {network.isa.target!r}: its times are estimates, none is measured")
        prepared = prepare(network, data, storage, scaling) if data is not None else None  # of searches only
        gains = {} if feeds is None else measure_gains(network, feeds, step)
        sources = sources_of(network, gains, step)
        terms, tried = Terms(difficulty, beta, ends), None
        if prepared is not None:
            plan, tried = search_plan(sources, budget, terms, method, search, prepared, step)
        else:
            plan = make_plan(sources, budget, method, terms)
        found = check_table(network, sources.table, check, progress=step) if check else None
    write_atomically(output, plan_text(plan).encode())
    _show(printer, plan)
    if found is not None:
        printer.line(
            f"{found.n} interpolated times measured anew: median error {found.median:.1%}, p90 {found.p90:.1%}, "
            f"worst {found.worst or '-'}"
        )
    if tried is not None:
        printer.line(f"accuracy {tried}")
    printer.line(f"{output}: written; prunus prune {model} --plan {output} -o sparse.onnx prunes by it")
    printer.write_json({"output": str(output), **_plain(plan), "check": found, "tried": tried})


def _show(printer: Printer, plan: "Plan") -> None:
    """A row per layer, and totals."""
    printer.table(
        ("layer", "weights", "scheme", "sparsity", "dense ms", "predicted ms", "sensitivity", "why"),
        [
            (
                row.layer.name, "x".join(str(n) for n in row.layer.shape), row.option.scheme or "dense",
                f"{row.option.sparsity:.3f}" if row.option.scheme else "-", number(row.layer.dense_ms, 4),
                ("" if row.option.measured else "~") + number(row.option.ms, 4), number(row.option.loss, 5), row.reason,
            )
            for row in plan.rows
        ],
    )  # fmt: skip
    printer.line(
        f"dense {plan.dense_ms:.4g} ms -> predicted {plan.predicted_ms:.4g} ms, "
        f"{plan.dense_ms / plan.predicted_ms:.2f} times as fast; {plan.other_ms:.4g} ms of it outside of these layers; "
        f"{plan.sparsity:.4f} of the weights zero; on {plan.about['machine']}, threads {plan.about['threads']}"
    )
    if all(row.option.scheme is None for row in plan.rows):
        printer.line("nothing is pruned: the network as it is keeps this budget")
    if any(not row.option.measured for row in plan.rows):
        printer.line("~ interpolated between measured sparsities, or estimated")


def _plain(plan: "Plan") -> dict[str, object]:
    layers = [
        {
            "name": row.layer.name, "weight": row.layer.weight, "shape": row.layer.shape, "scheme": row.option.scheme,
            "sparsity": row.option.sparsity, "dense_ms": row.layer.dense_ms, "predicted_ms": row.option.ms,
            "measured": row.option.measured, "sensitivity": row.option.loss, "reason": row.reason,
        }
        for row in plan.rows
    ]  # fmt: skip
    return {
        **plan.about, "dense_ms": plan.dense_ms, "predicted_ms": plan.predicted_ms, "other_ms": plan.other_ms,
        "sparsity": plan.sparsity, "layers": layers,
    }  # fmt: skip
