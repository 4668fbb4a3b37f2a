"""Recipes of SparseML, which is no longer made, as recipes of ours.

Read are YAML with tags, that YAML as front matter of a page in Markdown, and `eval(...)` of sums and products of
variables. What has no counterpart is left out and said, or refused where it decides what is pruned.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from prunus.errors import RecipeError

_TAG = re.compile(r"^\s*-\s*!\w*Modifier\b", re.MULTILINE)
PRUNING: Final = (
    "MagnitudePruningModifier", "GMPruningModifier", "GlobalMagnitudePruningModifier", "ConstantPruningModifier",
)  # fmt: skip
UNPRUNABLE: Final = (
    "OBSPruningModifier", "MFACPruningModifier", "MovementPruningModifier", "ACDCPruningModifier",
    "StructuredPruningModifier", "LayerThinningModifier", "PowerpropagationModifier",
)  # fmt: skip
LEFT_OUT: Final = {
    "QuantizationModifier": "give epochs.quantise instead",
    "LegacyQuantizationModifier": "give epochs.quantise instead",
    "DistillationModifier": "give distil instead",
    "TrainableParamsModifier": "all parameters are trained",
    "SetWeightDecayModifier": "give optimizer.weight_decay instead",
    "SetParamModifier": "give it in the model",
}
SCHEMES: Final = {"unstructured": "unstructured", "block4": "punched:1x4", "block": "punched:1x4", "filter": "filter",
                  "channel": "channel"}  # fmt: skip
ALL = ("__ALL__", "__ALL_PRUNABLE__")
Modifier = tuple[str, dict[str, Any]]


@final
@dataclass(frozen=True)
class Converted:
    """recipe: as `load_recipe` takes it, without model and data. left_out: what it doesn't say, and why, in lines."""

    recipe: dict[str, Any]
    left_out: tuple[str, ...]


@final
@dataclass
class _Found:
    """What modifiers have said so far; epochs are SparseML's, from the start of the training."""

    start: float | None = None
    end: float = 0.0
    last: float = 0.0
    gradual: dict[str, Any] = field(default_factory=dict)
    schedules: set[tuple[float, ...]] = field(default_factory=set)
    everywhere: bool = False
    rules: list[dict[str, Any]] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def is_sparseml(path: Path) -> bool:
    """Does the file hold modifiers?"""
    try:
        return _TAG.search(path.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False


def convert(path: Path) -> Converted:
    """The recipe that does what the one in `path` did, as far as we can.

    Raises RecipeError: not YAML, a modifier that decides what is pruned in a way that we don't have or that nobody
    knows, or no modifier that prunes.
    """
    content = _read(path)
    variables = _variables(content, path)
    found = _Found()
    for name, given in _modifiers(content):
        values = {key: _evaluate(value, variables, f"{path}: {name}: {key}") for key, value in given.items()}
        if name in PRUNING:
            _prune(name, values, found, f"{path}: {name}")
        elif name == "EpochRangeModifier":
            found.last = max(found.last, _number(values, "end_epoch", f"{path}: {name}", 0.0))
        elif "LearningRate" in name:
            _learn(name, values, found, f"{path}: {name}")
        elif name in LEFT_OUT:
            found.left_out.append(f"{name}: {LEFT_OUT[name]}")
        elif name in UNPRUNABLE:
            raise RecipeError(f"{path}: {name}: prunes in a way of its own; expected one of {', '.join(PRUNING)}")
        else:
            raise RecipeError(f"{path}: {name}: unknown modifier; known are {', '.join((*PRUNING, *LEFT_OUT))}")
    if not found.rules:
        raise RecipeError(f"{path}: no modifier that prunes, expected one of {', '.join(PRUNING)}")
    return _recipe(found)


def _recipe(found: _Found) -> Converted:
    start = found.start or 0.0
    if start >= 1:
        found.left_out.append(
            f"{start:g} epochs before pruning begins: give dense.epochs, or weights of a trained model"
        )
    sparsify = max(round(found.end - start), 1)
    recover = max(round(found.last - start) - sparsify, 0)
    recipe: dict[str, Any] = {"version": 1, "method": "gradual" if found.gradual else "one-shot",
                              "epochs": {"sparsify": sparsify, "recover": recover}, "layers": found.rules}  # fmt: skip
    if len(found.schedules) > 1:
        found.left_out.append("schedules of their own: all layers share the last one's, from first start to last end")
    if found.gradual:
        recipe["gradual"] = found.gradual
    if found.everywhere:
        recipe["scope"] = "global"
    if found.optimizer:
        recipe["optimizer"] = found.optimizer
    return Converted(recipe, tuple(found.left_out))


def _prune(name: str, values: Mapping[str, Any], found: _Found, where: str) -> None:
    if name == "ConstantPruningModifier":
        found.rules += [{"match": match, "keep": True} for match in _matches(values.get("params", ALL[-1]))]
        return
    start = max(_number(values, "start_epoch", where, 0.0), 0.0)  # -1: from the beginning
    found.start = start if found.start is None else min(found.start, start)
    end = _number(values, "end_epoch", where, start)
    sparsity = values.get("final_sparsity")
    if isinstance(sparsity, Mapping):
        rules = [(float(share), params) for share, params in sparsity.items()]
    else:
        rules = [(_number(values, "final_sparsity", where), values.get("params", ALL[-1]))]
    scheme = _scheme(values, where)
    for share, params in rules:
        found.rules += [{"match": match, "scheme": scheme, "sparsity": share} for match in _matches(params)]
    if end > start:
        each = _number(values, "update_frequency", where, 0.0)
        found.gradual = {
            "start": _number(values, "init_sparsity", where, 0.0),
            "updates": max(round(1 / each), 1) if each > 0 else 8,
        }
        found.schedules.add((start, end, *found.gradual.values()))
        inter = values.get("inter_func", "cubic")
        if inter != "cubic":
            found.left_out.append(f"{name}: inter_func {inter}: ours is cubic")
    found.end = max(found.end, end)
    found.last = max(found.last, end)
    found.everywhere |= name.startswith("Global") or bool(values.get("global_sparsity"))


def _matches(params: Any) -> list[str]:
    names = [params] if isinstance(params, str) else list(params or ())
    return ["re:.*" if name in ALL else _anchored(str(name)) for name in names]


def _anchored(name: str) -> str:
    """Their patterns match from the start of a parameter's name, ours anywhere in it."""
    pattern = name.removeprefix("re:")
    if pattern == name or (pattern.startswith(("^", ".*")) and "|" not in pattern):
        return name
    return f"re:^(?:{pattern})"


def _scheme(values: Mapping[str, Any], where: str) -> str:
    kind = str(values.get("mask_type", "unstructured"))
    if re.fullmatch(r"\d+:\d+", kind):
        return kind
    if isinstance(values.get("mask_type"), list | tuple) and len(values["mask_type"]) == 2:
        return "punched:{}x{}".format(*values["mask_type"])
    if kind not in SCHEMES:
        raise RecipeError(f"{where}: mask_type {kind}: expected one of {', '.join(SCHEMES)} or 2:4")
    return SCHEMES[kind]


def _learn(name: str, values: Mapping[str, Any], found: _Found, where: str) -> None:
    rate = values.get("init_lr", values.get("learning_rate"))
    if isinstance(rate, int | float):
        found.optimizer["rate"] = max(float(rate), found.optimizer.get("rate", 0.0))
    kind = str(values.get("lr_func", values.get("lr_class", "constant")))
    if "cosine" in kind.lower():
        found.optimizer["schedule"] = "cosine"
    elif name == "SetLearningRateModifier":
        found.optimizer.setdefault("schedule", "constant")
    else:
        found.optimizer.setdefault("schedule", "cosine")
        found.left_out.append(f"{name}: schedule {kind}: ours is {found.optimizer['schedule']}")


def _number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        found = "missing" if value is None else f"found {value!r}"
        raise RecipeError(f"{where}: {key}: {found}, expected a number")
    return float(value)


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    if front := re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL):
        text = front[1]
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    content = _plain(node)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found no keys, expected lists of modifiers")
    return content


def _plain(node: Node | None) -> Any:
    """A node as plain data; a mapping with a tag of its own is (tag, mapping)."""
    if isinstance(node, MappingNode):
        mapping = {_plain(key): _plain(value) for key, value in node.value}
        tag = str(node.tag)
        return (tag[1:], mapping) if tag.startswith("!") else mapping
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, ScalarNode):
        if str(node.tag).startswith("!"):
            return (str(node.tag)[1:], {})
        if node.style in ("'", '"'):
            return str(node.value)
        return YAML(typ="safe", pure=True).load(str(node.value)) if node.value else None
    return None


def _modifiers(content: Any) -> list[Modifier]:
    """All that has a tag, in the order of the file, whatever lists and stages it is in."""
    if isinstance(content, tuple):
        return [content]
    if isinstance(content, dict):
        return [found for value in content.values() for found in _modifiers(value)]
    if isinstance(content, list):
        return [found for value in content for found in _modifiers(value)]
    return []


def _variables(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Scalars at the top of the file; some are computed from earlier ones."""
    variables: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, str | int | float) or (isinstance(value, list) and not _modifiers(value)):
            variables[str(key)] = _evaluate(value, variables, f"{path}: {key}")
    return variables


def _evaluate(value: Any, variables: Mapping[str, Any], where: str) -> Any:
    """`eval(...)` as what it comes to; anything else as it is."""
    if isinstance(value, list):
        return [_evaluate(item, variables, where) for item in value]
    if isinstance(value, dict):
        return {_evaluate(key, variables, where): _evaluate(item, variables, where) for key, item in value.items()}
    if isinstance(value, str) and "{{" in value:
        raise RecipeError(f"{where}: {value!r}: templates aren't read, expected numbers")
    if not isinstance(value, str) or not (inner := re.fullmatch(r"eval\((.*)\)", value.strip(), re.DOTALL)):
        return value
    try:
        return _compute(ast.parse(inner[1].strip(), mode="eval").body, variables)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError) as error:
        raise RecipeError(f"{where}: {value}: {error}; expected numbers, variables and + - * /") from error


_SUMS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip


_CALLS: Final[Mapping[str, Callable[[Any], Any]]] = {"int": int, "float": float, "round": round}


def _compute(node: ast.expr, variables: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in variables:
            raise ValueError(f"no variable {node.id}")
        return variables[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand, variables)
    if isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        return _SUMS[type(node.op)](_compute(node.left, variables), _compute(node.right, variables))
    if isinstance(node, ast.Call) and ast.unparse(node.func) in _CALLS and len(node.args) == 1 and not node.keywords:
        return _CALLS[ast.unparse(node.func)](_compute(node.args[0], variables))
    raise ValueError(f"{ast.unparse(node)} isn't computed")
