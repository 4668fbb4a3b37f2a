"""Recipes: what is pruned, how and for how long. A recipe is YAML, a dict or a Recipe; all three are checked alike.

Keys are those of the classes below. A key that nobody knows is an error that names the nearest one.
"""

import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prunus.errors import RecipeError, SchemeError
from prunus.sparsity.project import resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.part import Count, Fraction, Part, Positive
from prunus.training.standard import Checkpointing, Data, DenseTraining, Network, Optimizer

VERSION = 1
_Part = TypeVar("_Part", bound=Part)


class Rule(Part):
    """What becomes of the layers that `match` hits and no earlier rule did.

    match: a module's or parameter's exact name, or `re:` and a pattern. skip: they stay dense. keep: the zeros
    that they have stay, and no more come. sparsity: fraction of zeros; without one, what the scheme fixes, or
    (reweighted) what its threshold makes of them.
    """

    match: str
    skip: bool = False
    keep: bool = False
    scheme: str | None = None
    sparsity: Fraction | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.skip and (self.scheme is not None or self.sparsity is not None):
            raise ValueError(f"rule {self.match!r}: skip, and a scheme or sparsity: expected one of the two")
        if self.keep and (self.skip or self.scheme is not None or self.sparsity is not None):
            raise ValueError(f"rule {self.match!r}: keep, and skip, a scheme or sparsity: expected one of them")
        if not self.skip and not self.keep and self.scheme is None:
            raise ValueError(f"rule {self.match!r}: no scheme, expected one such as bcr:8x64, or skip: true")
        if self.scheme is not None and self.sparsity is not None:
            resolve_sparsity(parse(self.scheme), self.sparsity)
        elif self.scheme is not None:
            parse(self.scheme)
        return self


class Epochs(Part):
    """sparsify: epochs in which zeros come about. recover: epochs of masked training after that. quantise: further
    masked ones with rounded weights and activations."""

    sparsify: Count = 3
    recover: Count = 3
    quantise: Count = 0


class Admm(Part):
    """Source: Zhang et al., ECCV 2018, arXiv:1804.03294; stages of rho as in YOLObile, AAAI 2021, arXiv:2009.05697.

    rho: of each stage, which all take as long. updates: of Z and U in each. one_sided: only what is to vanish is
    pulled.
    """

    rho: tuple[Positive, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    updates: Annotated[int, Field(ge=1)] = 3
    one_sided: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.rho:
            raise ValueError("rho: empty, expected at least one number")
        return self


class Reweighted(Part):
    """Source: Ma et al., "BLK-REW", arXiv:2001.08357.

    strength: of the pull over all steps together: a short run pulls as far as a long one. norm: of a group in the
    penalty, l2 or its square. refreshes: how often the weights of the penalty are computed anew. epsilon: relative to
    the root mean square of the layer's weights. threshold: without a sparsity, groups below this share of that go.
    """

    strength: Positive = 1.0
    norm: Literal["l2", "squared"] = "l2"
    refreshes: Annotated[int, Field(ge=1)] = 4
    epsilon: Positive = 0.1
    threshold: Positive = 0.1


class Gradual(Part):
    """Source: Zhu and Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878: sparsity rises as a cubic.

    start: sparsity at the first update. updates: of the masks, in each epoch. regrowth: pruned weights go on learning
    from the gradient of what they would be (straight through), and may come back.
    """

    start: Fraction = 0.0
    updates: Annotated[int, Field(ge=1)] = 8
    regrowth: bool = False


class Distil(Part):
    """Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531.

    weight: of the dense network's answers in the loss; the rest is of the labels. temperature: of both softmaxes.
    """

    weight: Fraction = 0.5
    temperature: Positive = 4.0


class Remove(Part):
    """Filters and channels go for real: coupled layers lose the same ones, and what is exported is smaller.

    macs: the share of multiply-adds to keep, in place of the rules' sparsities. round_to: layers become multiples of
    so many channels; auto: the vector of this CPU. latency: an engine that has to get faster by it: what doesn't pay
    stays as wide as it was.
    """

    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    latency: Literal["prunus", "onnxruntime"] | None = None


class Recipe(Part):
    """What to prune and how.

    criterion: what ranks weights; Taylor and Fisher need the gradients of `collect` steps first. scope: `global` shares
    out the rules' mean sparsity over all layers by rank. bcr: rows and columns of bcr blocks jointly, or columns first
    and rows later. recalibrate: batches from which BatchNorm takes new statistics once the masks stand. `model` and all
    below it are for `prunus train`; a loop of your own has these already. precision: bf16 is mixed, weights stay
    float32.
    """

    version: Literal[1] = 1
    method: Literal["one-shot", "gradual", "admm", "reweighted"] = "one-shot"
    epochs: Epochs = Epochs()
    layers: tuple[Rule, ...]
    criterion: Literal["magnitude", "taylor", "fisher"] = "magnitude"
    collect: Annotated[int, Field(ge=1)] = 50
    scope: Literal["layer", "global"] = "layer"
    bcr: Literal["joint", "column-row"] = "joint"
    admm: Admm = Admm()
    reweighted: Reweighted = Reweighted()
    gradual: Gradual = Gradual()
    recalibrate: Count = 0
    distil: Distil | None = None
    remove: Remove | None = None
    model: Network | None = None
    data: Data | None = None
    optimizer: Optimizer = Optimizer()
    dense: DenseTraining | None = None
    loss: Literal["cross-entropy", "mse"] = "cross-entropy"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Count = 0
    checkpoint: Checkpointing = Checkpointing()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.layers:
            raise ValueError("layers: empty, expected at least one rule")
        if self.remove is not None:
            self._removes(self.remove)
        elif self.method != "reweighted":
            for index, rule in enumerate(self.layers):
                if rule.scheme is None or rule.sparsity is not None:
                    continue
                try:
                    resolve_sparsity(parse(rule.scheme), None)
                except SchemeError as error:
                    raise ValueError(f"layers.{index}: {error}") from error
        if self.method == "admm" and self.criterion != "magnitude":
            raise ValueError(f"criterion: {self.criterion} with method admm, expected magnitude: it projects weights")
        return self

    def _removes(self, remove: Remove) -> None:
        for rule in self.layers:
            if rule.keep:
                raise ValueError(f"remove: rule {rule.match!r} has keep, expected filter or channel, or skip: true")
            if rule.scheme is None:
                continue
            if rule.scheme not in ("filter", "channel"):
                raise ValueError(f"remove: rule {rule.match!r} has {rule.scheme}, expected filter or channel")
            if remove.macs is not None and rule.sparsity is not None:
                raise ValueError(f"remove.macs, and rule {rule.match!r} has a sparsity: expected one of the two")
            if remove.macs is None and rule.sparsity is None:
                raise ValueError(f"remove: rule {rule.match!r} has no sparsity, expected one, or remove.macs")
        if self.gradual.regrowth:
            raise ValueError("remove: gradual.regrowth: BatchNorm of what was removed can't come back")
        if self.scope == "global":
            raise ValueError("remove: scope global, expected remove.macs, which shares out over all layers")


def load_recipe(source: "str | Path | Mapping[str, Any] | Recipe", settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file, a dict, or a Recipe as it is; with `settings` as in `--set`, "a.b=c".

    `variables:` of a file are names that its other texts use as ${name}; settings may change them.
    Raises RecipeError: no such file, not YAML, an unknown key or a value that it can't have; one line says where.
    """
    return load_as(Recipe, source, settings)


def load_as(kind: type[_Part], source: "str | Path | Mapping[str, Any] | _Part", settings: Sequence[str] = ()) -> _Part:
    """As `load_recipe`, of another kind of recipe."""
    if isinstance(source, kind):
        if not settings:
            return source
        source = source.model_dump(mode="json")
    assert not isinstance(source, Part)
    where = "recipe" if isinstance(source, Mapping) else str(source)
    content = _plain(source if isinstance(source, Mapping) else read_yaml(Path(source)), where)
    if not isinstance(content, dict):
        known = " and ".join(list(kind.model_fields)[1:4:2])
        raise RecipeError(f"{where}: found {_kind(content)}, expected keys such as {known}")
    for setting in settings:
        _set(content, setting)
    given = content.pop("variables", None) or {}
    if not isinstance(given, dict):
        raise RecipeError(f"{where}: variables: found {_kind(given)}, expected names and values")
    variables: dict[str, Any] = {}
    for name, value in given.items():  # one may use those before it
        variables[name] = _substitute(value, variables, where)
    content = _substitute(content, variables, where)
    try:
        return kind.model_validate_json(json.dumps(content), strict=True)  # strict: true is no number, "1" neither
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, kind)}") from error


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, as docs/recipe.schema.json has it."""
    schema = Recipe.model_json_schema()
    values = {"type": "object", "description": "Names that other texts use as ${name}."}
    schema["properties"]["variables"] = values
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def recipe_text(recipe: Part) -> str:
    """The recipe as YAML, all that is in force."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    yaml.dump(recipe.model_dump(mode="json", exclude_none=True), stream)
    return stream.getvalue()


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One error of a validation as a line, unknown keys first: where, what was found, what was expected."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields(model, first["loc"][:-1]) + ([] if first["loc"][:-1] else ["variables"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    said = first["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    if first["type"] == "value_error":
        return f"{where}: {said}" if where else said
    return f"{where}: found {first['input']!r}: {said}" if first["type"] != "missing" else f"{where}: missing"


def _fields(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Keys of the part of `model` at `path`."""
    at: Any = model
    for step in path:
        if isinstance(step, int):
            continue
        annotation = at.model_fields[step].annotation
        parts = [annotation, *getattr(annotation, "__args__", ())]
        found = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if not found:
            return []
        at = found[0]
    return list(at.model_fields)


def _plain(value: Any, where: str) -> Any:
    """A copy that JSON can hold: dicts, lists, texts, numbers, truth values and None."""
    try:
        return json.loads(json.dumps(value, default=_plain_part))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}, expected keys, lists, texts and numbers") from error


def _plain_part(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Scheme | Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"found {value!r}")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises RecipeError: no such file, or not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {_said(error)}") from error


def _said(error: YAMLError) -> str:
    """What YAML objects to, and in which line, on one line."""
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    return (f"line {mark.line + 1}: " if mark is not None else "") + " ".join(problem.split())


def _set(content: dict[str, Any], setting: str) -> None:
    """Change what "a.b=c" names; c is YAML. Lists are counted from 0."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {setting!r}: expected KEY=VALUE, as epochs.recover=5")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise RecipeError(f"--set {setting!r}: not a value: {_said(error)}") from error
    *parents, last = path.split(".")
    at: Any = content
    for key in parents:
        if isinstance(at, dict) and at.get(key) is None:
            at[key] = {}
        at = at[key] if isinstance(at, dict) else _item(at, key, setting)
    if isinstance(at, dict):
        at[last] = value
    else:
        _item(at, last, setting)
        at[int(last)] = value


def _item(at: Any, key: str, setting: str) -> Any:
    if not isinstance(at, list) or not key.isdecimal() or int(key) >= len(at):
        found = f"a list of {len(at)}" if isinstance(at, list) else _kind(at)
        raise RecipeError(f"--set {setting!r}: {key} of {found}: there is none")
    return at[int(key)]


def _substitute(value: Any, variables: Mapping[str, Any], where: str) -> Any:
    """Put variables in: a text that is nothing but ${name} becomes the value, whatever its type."""
    if isinstance(value, dict):
        return {key: _substitute(item, variables, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, variables, where) for item in value]
    if not isinstance(value, str):
        return value

    def known(name: str) -> Any:
        if name not in variables:
            raise RecipeError(
                f"{where}: variable {name}: there is none; there are {', '.join(variables) or 'no others'}"
            )
        return variables[name]

    if whole := re.fullmatch(r"\$\{(\w+)\}", value):
        return known(whole[1])
    return re.sub(r"\$\{(\w+)\}", lambda match: str(known(match[1])), value)


def _kind(value: Any) -> str:
    return {dict: "keys", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))
