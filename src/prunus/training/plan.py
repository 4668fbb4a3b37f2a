"""A plan: what was decided per layer, as rules that take the place of a recipe's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prunus.errors import RecipeError
from prunus.training.part import Part
from prunus.training.recipe import Recipe, Rule, explain, load_recipe, read_yaml


class Plan(Part):
    """Rules per layer, by name, each with scheme and sparsity or `skip`."""

    version: Literal[1] = 1
    layers: tuple[Rule, ...]


def read_plan(path: Path) -> Plan:
    """The plan of a YAML file.

    Raises RecipeError: no such file, not YAML, an unknown key or a value that it can't have; one line says where.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found no keys, expected layers with a list of rules")
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Plan)}") from error


def with_plan(source: "str | Path | Mapping[str, Any] | Recipe", plan: Plan, settings: Sequence[str] = ()) -> Recipe:
    """A recipe whose rules are the plan's; it needs none of its own.

    Raises RecipeError: as `load_recipe`.
    """
    rules = json.loads(plan.model_dump_json(exclude_none=True))["layers"]
    return load_recipe(source, [f"layers={json.dumps(rules)}", *settings])
