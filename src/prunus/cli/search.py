"""prunus search: how wide each layer should be, for a budget of multiply-adds, weights or milliseconds."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.cli.options import Json, Quiet, Threads, Verbose
from prunus.cli.output import Printer
from prunus.errors import TrainingError

EXAMPLE = "prunus search search.yaml --macs 50% -o found"


def search(
    source: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="What to search, as YAML; or an ONNX file, with data.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for found.onnx, found.prunus, widths, report, checkpoints.")
    ] = Path("found"),
    macs: Annotated[str | None, typer.Option("--macs", help="Share of the multiply-adds that stays: 50%.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="Share of the weights that stays: 50%.")] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", help="Time at batch 1 on this machine: 6ms, on --threads.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="pas, or without a search: bn-gamma, uniform, magnitude.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Of an ONNX file: npz with x and y, or folder of classes.")
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="As --data, to measure on.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: epochs.search=5.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, whatever checkpoints there are.")] = False,
    threads: Threads = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search the width of each layer while training; goes on where it was stopped, and ends with a compiled network."""
    from prunus.search.recipe import load_search_recipe
    from prunus.search.results import MODEL, met, summary, write
    from prunus.search.trainer import SearchRun
    from prunus.training.trainer import Audience

    if (n_processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise TrainingError(f"prunus search: started as {n_processes} processes, expected one")
    printer = Printer(quiet, json)
    settings = [*as_settings(macs, weights, latency, method), *(setting or [])]
    recipe = load_search_recipe(source_of(source, data, validation), settings)
    with printer.progress("search") as step:
        run = SearchRun(recipe, output, fresh, threads, Audience(step, printer.note))
        run.run()
        outcome = write(run)
    printer.table(
        ("layer", "before", "after", "kept", "note"),
        [
            (layer.weight.removesuffix(".weight"), str(layer.before), str(layer.after),
             f"{layer.after / layer.before:.0%}", layer.note)
            for layer in outcome.layers
        ],
    )  # fmt: skip
    printer.line("  ".join(f"{name} {score}" for name, score in run.scores.items()))
    for name, (before, after), unit, digits in (
        ("multiply-adds", outcome.macs, "M", 3), ("weights", outcome.weights, "M", 3), ("latency", outcome.ms, "ms", 3),
    ):  # fmt: skip
        scale = 1.0 if unit == "ms" else 1e-6
        printer.line(f"{name}: {before * scale:.{digits}f} -> {after * scale:.{digits}f} {unit}, {after / before:.2%}")
    printer.line(f"{output / MODEL}: {met(outcome, recipe.budget)}")
    printer.write_json(summary(outcome, output))


def as_settings(macs: str | None, weights: str | None, latency: str | None, method: str | None) -> list[str]:
    """What options say of a recipe, as `--set` would.

    Raises BadParameter: not numbers.
    """
    options = (("macs", macs, "%"), ("weights", weights, "%"), ("latency", latency, "ms"))
    budget = {name: number(f"--{name}", text, suffix) for name, text, suffix in options if text is not None}
    found = [f"budget={{{', '.join(f'{name}: {value!r}' for name, value in budget.items())}}}"] if budget else []
    return found + ([f"method={method}"] if method is not None else [])


def source_of(path: Path, data: str | None, validation: str | None) -> Path | dict[str, Any]:
    """The recipe: a file, or one made for an ONNX file.

    Raises BadParameter: data with the one, or none with the other.
    """
    if path.suffix != ".onnx":
        if data is not None or validation is not None:
            raise typer.BadParameter("--data and --validation go with an ONNX file; a recipe has its own data")
        return path
    if data is None or validation is None:
        raise typer.BadParameter(f"{path}: --data and --validation missing, expected npz files or folders")
    return {"model": {"build": str(path)}, "data": {"train": data, "validation": validation}}


def number(option: str, text: str, suffix: str) -> float:
    """0.5 of "50%" or "0.5", 6 of "6ms" or "6".

    Raises BadParameter: neither; not a share of something, or no time.
    """
    plain, share = text.strip().removesuffix(suffix).strip(), suffix == "%"
    try:
        found = float(plain)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: expected {'50% or 0.5' if share else '6ms'}") from error
    found = found / 100 if share and text.strip().endswith("%") else found
    if share and not 0 < found <= 1:
        raise typer.BadParameter(f"{option} {text!r}: expected a share above 0 and up to 1, as 50% or 0.5")
    if not share and not 0 < found < math.inf:
        raise typer.BadParameter(f"{option} {text!r}: expected milliseconds above 0, as 6ms")
    return found
