"""prunus train: a recipe with a network and data, trained, pruned and recovered."""

import json as json_module
import os
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.cli.options import Json, Quiet, Threads, Verbose
from prunus.cli.output import Printer
from prunus.errors import PrunusError, PrunusWarning, RecipeError
from prunus.runtime.atomic import write_atomically

EXAMPLE = "prunus train recipe.yaml -o trained"


def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="What to train and prune, as YAML; SparseML's are read too.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for sparse.onnx, weights, report and checkpoints."),
    ] = Path("trained"),
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: epochs.recover=5.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="YAML with layers, in place of the recipe's.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, whatever checkpoints there are.")] = False,
    write_recipe: Annotated[
        Path | None, typer.Option("--write-recipe", metavar="FILE", help="Write the recipe in force, and stop.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, and stop.")] = False,
    threads: Threads = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train, prune and recover a network as a recipe says; goes on where it was stopped.

    `accelerate launch -m prunus train ...` and `torchrun -m prunus train ...` run it on several processes.
    """
    if schema:
        from prunus.training.recipe import recipe_schema

        print(json_module.dumps(recipe_schema(), indent=2))
        return
    if recipe is None:
        raise typer.BadParameter("RECIPE missing, expected a file as recipe.yaml")
    first = os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate number processes
    printer = Printer(quiet or not first, json if first else None)
    if first:
        _train(printer, recipe, output, setting or [], plan, fresh, write_recipe, threads)
        return
    warnings.simplefilter("ignore", PrunusWarning)
    try:
        _train(printer, recipe, output, setting or [], plan, fresh, None, threads)
    except PrunusError as error:  # the first process has said it
        raise typer.Exit(2) from error


def _train(
    printer: Printer,
    source: Path,
    output: Path,
    settings: list[str],
    plan: Path | None,
    fresh: bool,
    write_recipe: Path | None,
    threads: int | None,
) -> None:
    recipe = _load(printer, source, settings, plan)
    if write_recipe is not None:
        from prunus.training.recipe import recipe_text

        write_atomically(write_recipe, recipe_text(recipe).encode())
        printer.line(f"{write_recipe}: written")
        return
    if recipe.model is None or recipe.data is None:
        missing = "model" if recipe.model is None else "data"
        raise RecipeError(f"{source}: {missing}: missing, expected it as docs/training.md says")
    from prunus.training.trainer import Audience, train

    with printer.progress("train") as step:
        trained = train(recipe, output, fresh, threads, Audience(step, printer.note))
    rows = [
        (
            layer.name, "x".join(map(str, layer.shape)), str(layer.scheme) if layer.scheme else "-",
            f"{layer.sparsity:.4f}", layer.note,
        )
        for layer in trained.report.layers
    ]  # fmt: skip
    printer.table(("layer", "weights", "scheme", "sparsity", "note"), rows)
    printer.line("  ".join(f"{name} {score}" for name, score in trained.scores.items()))
    printer.line(f"{output / 'sparse.onnx'}: {trained.report.sparsity:.4f} of the pruned layers' weights are zero")
    printer.write_json({"output": str(output), **trained.plain()})


def _load(printer: Printer, source: Path, settings: list[str], plan: Path | None) -> Any:
    from prunus.training.plan import read_plan, with_plan
    from prunus.training.recipe import load_recipe
    from prunus.training.sparseml import convert, is_sparseml

    given: Any = source
    if is_sparseml(source):
        converted = convert(source)
        for line in converted.left_out:
            printer.note(f"{source}: left out: {line}")
        given = converted.recipe
    return load_recipe(given, settings) if plan is None else with_plan(given, read_plan(plan), settings)
