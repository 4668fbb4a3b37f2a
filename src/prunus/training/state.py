"""A Pruner's state as flat tensors, and the proof that it belongs to a model and a recipe."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.errors import CheckpointError
from prunus.training.layers import Target
from prunus.training.part import Part
from prunus.training.recipe import Recipe

_COUNTERS, _IDENTITY = "counters", "identity"


def identity(targets: Sequence[Target], recipe: Recipe, steps_per_epoch: int) -> str:
    """What a state has to be of: names, shapes and schemes of the weights, the recipe and its clock, as JSON."""
    layers = {t.layer.parameter: [list(t.layer.weight.shape), str(t.scheme), t.sparsity] for t in targets}
    return describe(layers, recipe, steps_per_epoch)


def describe(layers: Mapping[str, list[Any]], recipe: Part, steps_per_epoch: int) -> str:
    """An identity as JSON; how often checkpoints are written is no part of it."""
    what = recipe.model_dump(mode="json", exclude={"checkpoint"})
    return json.dumps({"layers": layers, "recipe": what, "steps_per_epoch": steps_per_epoch}, sort_keys=True)


def pack(parts: Mapping[str, Mapping[str, Tensor]], counters: Sequence[int], who: str) -> dict[str, Tensor]:
    """Flat tensors, by "part/name"; on the CPU, each its own."""
    flat = {
        f"{part}/{name}": tensor.detach().cpu().clone()
        for part, items in parts.items()
        for name, tensor in items.items()
    }
    flat[_COUNTERS] = torch.tensor(list(counters))
    flat[_IDENTITY] = torch.from_numpy(np.frombuffer(who.encode(), np.uint8).copy())
    return flat


def unpack(state: Mapping[str, Tensor], expected: str) -> tuple[dict[str, dict[str, Tensor]], list[int]]:
    """Parts and counters of what `pack` made.

    Raises CheckpointError: another model's, another recipe's, or not a state at all.
    """
    if _COUNTERS not in state or _IDENTITY not in state:
        raise CheckpointError(f"checkpoint: {_IDENTITY} missing, expected a Pruner's state")
    try:
        found = bytes(state[_IDENTITY].cpu().numpy().tobytes()).decode()
        said = None if found == expected else difference(found, expected)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint: {_IDENTITY} can't be read, expected a Pruner's state") from error
    if said is not None:
        raise CheckpointError(f"checkpoint: {said}")
    parts: dict[str, dict[str, Tensor]] = {"masks": {}, "scores": {}, "method": {}}
    for key, tensor in state.items():
        part, slash, name = key.partition("/")
        if slash:
            parts.setdefault(part, {})[name] = tensor
    return parts, [int(n) for n in state[_COUNTERS]]


def difference(found: str, expected: str) -> str:
    """The first thing in which two identities differ."""
    theirs, ours = json.loads(found), json.loads(expected)
    hashes = f"(sha256 {_hash(found)}, expected {_hash(expected)})"
    for name in ours["layers"]:
        if name not in theirs["layers"]:
            others = [*(name for name in theirs["layers"] if name not in ours["layers"]), *theirs["layers"], "none"]
            return f"of another model: no layer {name} there, but {others[0]} {hashes}"
        if theirs["layers"][name] != ours["layers"][name]:
            there, here = theirs["layers"][name], ours["layers"][name]
            return f"of another model or recipe: {name} is {there}, expected {here} {hashes}"
    for name in theirs["layers"]:
        if name not in ours["layers"]:
            return f"of another model: layer {name} there, none here {hashes}"
    for key in {**ours["recipe"], **theirs["recipe"]}:
        there, here = theirs["recipe"].get(key), ours["recipe"].get(key)
        if there != here:
            return f"of another recipe: {key} is {there}, expected {here}"
    return f"made with {theirs['steps_per_epoch']} steps per epoch, expected {ours['steps_per_epoch']}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
