"""A plan: what was decided per layer, as rules that take the place of a recipe's; as `prunus map` writes it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prunus.errors import RecipeError
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.exported import OWN, module_name
from prunus.training.part import Part
from prunus.training.recipe import Recipe, Rule, explain, load_recipe, read_yaml


class PlanRule(Rule):
    """A rule that names a layer. weight: the name of its weights. For readers: dense_ms, predicted_ms in the network,
    sensitivity to being pruned so."""

    weight: str | None = None
    dense_ms: float | None = None
    predicted_ms: float | None = None
    sensitivity: float | None = None

    def of_torch(self, file: bool) -> dict[str, Any]:
        """As a recipe's rule. file: for the ONNX file as a module, whose parameters have its weights' names; else for
        the module that was exported to it: weights keep their names, but those that BatchNorm was folded into."""
        rule = self.model_dump(mode="json", exclude_none=True, include=set(Rule.model_fields))
        name = self.weight or self.match
        if not file and (self.weight is None or name.startswith(OWN)):
            name = module_name(self.match) or self.match
        return {**rule, "match": name}


class Plan(Part):
    """Rules per layer, by name, each with scheme and sparsity or `skip`; and where and for what they were chosen, which
    is for readers."""

    version: Literal[1] = 1
    machine: str | None = None
    target: str | None = None
    threads: int | None = None
    precision: str | None = None
    method: str | None = None
    budget: str | None = None
    dense_ms: float | None = None
    predicted_ms: float | None = None
    layers: tuple[PlanRule, ...]

    def choices(self) -> list[tuple[str, tuple[Scheme, float | None] | None]]:
        """As `prune_by_rules` takes them.

        Raises RecipeError: `keep`, which is for training.
        """
        for rule in self.layers:
            if rule.keep:
                raise RecipeError(f"plan: layer {rule.match!r}: keep, expected skip, or a scheme: nothing is trained")
        return [
            (rule.match, None if rule.scheme is None else (parse(rule.scheme), rule.sparsity)) for rule in self.layers
        ]


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
    # layers without weights of their own in the file stay dense: torch knows them by other names
    kept, seen = [], set[str]()
    for rule in plan.layers:
        again = (
            rule.weight in seen and rule.predicted_ms is None
        )  # another node with the same weights, as `map` adds it
        if not again and (rule.weight or not rule.skip or rule.predicted_ms is None):
            kept.append(rule)
            seen.add(rule.weight or "")

    def recipe(file: bool) -> Recipe:
        return load_recipe(source, [f"layers={json.dumps([rule.of_torch(file) for rule in kept])}", *settings])

    found = recipe(False)
    return recipe(True) if found.model is not None and found.model.build.endswith(".onnx") else found
