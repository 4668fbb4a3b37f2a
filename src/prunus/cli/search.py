"""prunus search: how wide each layer should be, for a budget of multiply-adds, weights or milliseconds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.cli.options import Json, Quiet, Threads, Verbose
from prunus.cli.output import Printer

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
    from prunus.search.results import MODEL, summary, write
    from prunus.search.trainer import SearchRun
    from prunus.training.trainer import Audience

    printer = Printer(quiet, json)
    recipe = load_search_recipe(given(source, macs, weights, latency, method, data, validation), setting or [])
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
    printer.line(f"{output / MODEL}: {outcome.cost:.2%} of the whole cost, budget {outcome.budget:.2%}")
    printer.write_json(summary(outcome, output))


def given(
    source: Path, macs: str | None, weights: str | None, latency: str | None, method: str | None,
    data: str | None, validation: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The recipe, with what the command line says of it.

    Raises BadParameter: options that don't go together. RecipeError: as `read_yaml`.
    """
    from prunus.training.recipe import read_yaml

    budget = {
        name: number(f"--{name}", text, suffix)
        for name, text, suffix in (("macs", macs, "%"), ("weights", weights, "%"), ("latency", latency, "ms"))
        if text is not None
    }
    if source.suffix == ".onnx":
        if data is None or validation is None:
            raise typer.BadParameter(f"{source}: --data and --validation missing, expected npz files or folders")
        if not source.exists():
            raise typer.BadParameter(f"{source}: no such file")
        content: Any = {"model": {"build": str(source)}, "data": {"train": data, "validation": validation}}
    elif data is not None or validation is not None:
        raise typer.BadParameter("--data and --validation go with an ONNX file; a recipe has its own data")
    else:
        content = read_yaml(source)
        if not isinstance(content, dict):
            raise typer.BadParameter(f"{source}: expected keys such as model, data and budget")
    if budget:
        content["budget"] = budget
    if method is not None:
        content["method"] = method
    return dict(content)


def number(option: str, text: str, suffix: str) -> float:
    """0.5 of "50%" or "0.5", 6 of "6ms" or "6".

    Raises BadParameter: neither.
    """
    plain = text.strip().removesuffix(suffix).strip()
    try:
        found = float(plain)
    except ValueError as error:
        example = "50% or 0.5" if suffix == "%" else "6ms"
        raise typer.BadParameter(f"{option} {text!r}: expected {example}") from error
    return found / 100 if suffix == "%" and text.strip().endswith("%") else found
