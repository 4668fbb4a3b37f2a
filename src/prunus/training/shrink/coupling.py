"""How a Pruner removes filters and channels: its masks are those of groups, over all layers that are coupled.

How wide each bundle becomes is decided once, at the first ranking; which groups stay, whenever a method asks.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import PrunusWarning, RuleError, TrainingError
from prunus.training.layers import Dense, Layer, Target
from prunus.training.recipe import Recipe
from prunus.training.scores import Scores
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.groups import Key
from prunus.training.shrink.importance import best, importance
from prunus.training.shrink.latency import measured
from prunus.training.shrink.remove import shrink
from prunus.training.shrink.trace import Inputs
from prunus.training.shrink.widths import Widths, by_macs, by_ratio, full, lanes, roll_back

Bools = NDArray[np.bool_]


@final
class Coupling:
    """The groups that a recipe's rules reach.

    targets: those with something that can go. dense: the others, each with its reason. latency: of a network; a bundle
    whose shrinking doesn't pay stays whole.
    Raises UnsupportedError: the network can't be traced. TrainingError: no example inputs, or parameters in shards.
    RuleError: nothing can go.
    Warns (PrunusWarning) of each layer that a rule names and that stays whole.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs | None,
        recipe: Recipe,
        targets: Sequence[Target],
        dense: Sequence[Dense],
        latency: Callable[[nn.Module], float] | None = None,
    ) -> None:
        if example_inputs is None:
            raise TrainingError("remove: no example inputs, expected a batch to find out which layers are coupled by")
        if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
            raise TrainingError("remove: the parameters are in shards, expected whole ones, as under DDP")
        assert recipe.remove is not None
        if latency is None and recipe.remove.latency is not None:
            latency = measured(example_inputs, recipe.remove.latency)
        self._model, self._inputs, self._latency, self._remove = model, example_inputs, latency, recipe.remove
        self.groups = find_groups(model, example_inputs)
        self._keys = {target.layer.parameter: _key(target) for target in targets}
        skipped = [item.layer.parameter for item in dense if item.reason == "skipped"]
        held = {bundle for name in skipped for bundle in self._bundles((name, 0))}
        self._free: list[int] = []
        staying, reached = list[Dense](), list[Target]()
        for target in targets:
            bundles = self._bundles(self._keys[target.layer.parameter])
            if not set(bundles) - held:
                why = self.groups.reasons.get(target.layer.parameter, "not reached by the network")
                why = "coupled with a layer that is skipped" if bundles else why
                staying.append(Dense(target.layer, f"stays whole: {why}"))
                continue
            reached.append(target)
            self._free.extend(bundle for bundle in bundles if bundle not in held)
        if not reached:
            raise RuleError(f"remove: nothing can go ({staying[0].layer.parameter} {staying[0].reason})")
        for item in staying:
            warnings.warn(f"{item.layer.parameter} {item.reason}", PrunusWarning, stacklevel=3)
        self.targets, self.dense = tuple(reached), (*dense, *staying)
        self._free = sorted(set(self._free))
        self._widths: Widths | None = None

    @property
    def layers(self) -> list[Layer]:
        """All parameters that lose something with the groups, as layers that can be masked."""
        modules = dict(self._model.named_modules())
        names = [name for name, _ in self._model.named_parameters() if name in self.groups.shapes]
        return [Layer(name.rpartition(".")[0], name, modules[name.rpartition(".")[0]]) for name in names]

    def rank(self, scores: Scores, share: float, start: float) -> dict[str, Bools]:
        """Masks by parameter, `share` of the way from `start` to the widths in the end."""
        arrays = {target.layer.parameter: scores.of(target.layer) for target in self.targets}
        return self.choose(arrays, share, start)

    def choose(self, arrays: Mapping[str, NDArray[Any]], share: float = 1.0, start: float = 0.0) -> dict[str, Bools]:
        """As `rank`, by arrays like the targets' weights."""
        worth = importance(self.groups, arrays, [self._keys[target.layer.parameter] for target in self.targets])
        if self._widths is None:
            self._widths = self._decide(worth)
        whole = full(self.groups)
        gone = 1 - self._widths / np.maximum(whole, 1)
        gone += (np.minimum(start, gone) - gone) * (1 - share)
        widths = np.rint(whole * (1 - gone)).astype(np.int64)
        masks = self.groups.masks(best(self.groups, worth, widths))
        return {layer.parameter: masks[layer.parameter] for layer in self.layers if layer.parameter in masks}

    def shrink(self) -> nn.Module:
        """A smaller copy, without the groups that are zero everywhere. Raises ShrinkError: as `shrink`."""
        return shrink(self._model, self._inputs, None, self.groups)

    def note(self, parameter: str, masks: Mapping[str, Bools]) -> str:
        """What stays of a weight, in words."""
        mask = masks.get(parameter)
        if mask is None or mask.ndim < 2:
            return ""
        flat = mask.reshape(mask.shape[0], mask.shape[1], -1)
        rows, columns = int(np.any(flat, (1, 2)).sum()), int(np.any(flat, (0, 2)).sum())
        return f"{rows} of {flat.shape[0]} filters and {columns} of {flat.shape[1]} channels stay"

    def state(self) -> dict[str, Tensor]:
        """The widths, once they are decided."""
        return {} if self._widths is None else {"": torch.from_numpy(self._widths.copy())}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self._widths = state[""].cpu().numpy().copy() if "" in state else None

    def _decide(self, worth: NDArray[np.float64]) -> Widths:
        round_to = lanes() if self._remove.round_to == "auto" else self._remove.round_to
        if self._remove.macs is not None:
            widths = by_macs(self.groups, worth, self._remove.macs, self._free, round_to)
        else:
            widths = by_ratio(self.groups, self._sparsities(), round_to)
        if self._latency is None:
            return widths
        return roll_back(self._model, self._inputs, self.groups, worth, widths, self._latency)

    def _sparsities(self) -> dict[int, float]:
        """The mean of what the rules say of the layers in each bundle that may shrink."""
        said: dict[int, list[float]] = {bundle: [] for bundle in self._free}
        for target in self.targets:
            for bundle in self._bundles(self._keys[target.layer.parameter]):
                if bundle in said and target.sparsity is not None:
                    said[bundle].append(target.sparsity)
        return {bundle: float(np.mean(values)) for bundle, values in said.items() if values}

    def _bundles(self, key: Key) -> list[int]:
        """The numbers of the bundles that lie along a dimension of a weight."""
        counts = self.groups.counts.get(key)
        if counts is None:
            return []
        return [number for number, members in enumerate(self.groups.bundles) if counts[members[0]]]


def _key(target: Target) -> Key:
    return target.layer.parameter, 0 if target.scheme.name == "filter" else 1
