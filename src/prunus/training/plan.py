"""A plan: what was decided per layer, as rules that take the place of a recipe's; as `prunus map` writes it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prunus.errors import RecipeError
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.part import Part
from prunus.training.recipe import Recipe, Rule, explain, load_recipe, read_yaml

MADE = "onnx::"  # how names of weights begin that torch's exporter made up, as where it folded a BatchNorm


class PlanRule(Rule):
    """A rule that names a layer. weight: the name of its weights; in a file of `Pruner.export` that of the torch
    parameter. For readers: dense_ms, predicted_ms in the network, sensitivity to being pruned so."""

    weight: str | None = None
    dense_ms: float | None = None
    predicted_ms: float | None = None
    sensitivity: float | None = None

    def of_torch(self) -> dict[str, Any]:
        """As a recipe's rule: by the weights' name where that is torch's, else by the module in the node's name."""
        rule = self.model_dump(mode="json", exclude_none=True, include=set(Rule.model_fields))
        if self.weight and not self.weight.startswith(MADE):
            return {**rule, "match": self.weight}
        return {**rule, "match": module_of(self.match) or self.match}


def module_of(node: str) -> str:
    """The module that torch's exporter names a node after: layer1.0.conv1 of /layer1/layer1.0/conv1/Conv; "" of names
    that aren't its."""
    if not node.startswith("/"):
        return ""
    path: list[str] = []
    for part in node.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path)


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
    rules = [rule.of_torch() for rule in plan.layers if rule.weight or not rule.skip or rule.predicted_ms is None]
    return load_recipe(source, [f"layers={json.dumps(rules)}", *settings])
