"""The Pruner: three calls in a user's own loop turn a training into a pruning.

pruner = prunus.Pruner(model, recipe, example_inputs=x, steps_per_epoch=len(loader))
loss = criterion(model(x), y) + pruner.penalty()
loss.backward(); optimizer.step(); pruner.step()
pruner.finalize(); pruner.export("sparse.onnx")
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import PrunusWarning, TrainingError
from prunus.pruning.one_shot import LayerReport
from prunus.sparsity.project import TOLERANCE
from prunus.sparsity.stacked import check_stacked
from prunus.training import shards
from prunus.training.goals import Goal, first_period, second_period
from prunus.training.keep import with_kept
from prunus.training.layers import Target, assign, find_layers
from prunus.training.masks import Masks
from prunus.training.methods import METHODS, Method, Work
from prunus.training.quantise import Rounding
from prunus.training.recipe import Recipe, load_recipe
from prunus.training.scores import Scores, array_of
from prunus.training.shrink.coupling import Coupling
from prunus.training.shrink.outputs import output_layers
from prunus.training.state import identity, pack, unpack

Phase = Literal["sparsify", "recover", "quantise"]


@final
@dataclass(frozen=True)
class PruneReport:
    """What became of each weight. sparsity: fraction of zeros over all weights that were pruned; overall: over all
    weights that are convolutions', linear or recurrent layers'."""

    layers: tuple[LayerReport, ...]
    sparsity: float
    overall: float


@final
class Pruner:
    """Prunes a network in place while it is trained.

    model: may be wrapped for several processes. recipe: path, dict or Recipe; see `training.recipe`. example_inputs: a
    tensor or a tuple of them, batch first; for `export`, and where filters are removed. steps_per_epoch: of the
    optimiser. latency: of a network, in any unit; where filters are removed, layers whose shrinking doesn't make it
    faster stay as wide as they were.

    Raises RecipeError: as `load_recipe`. RuleError: a rule that matches no layer. TrainingError: no steps_per_epoch
    where the recipe counts in epochs. Warns (PrunusWarning) of each layer that was named and can't take its scheme, or
    makes the network's outputs and would lose filters.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        example_inputs: Tensor | tuple[Tensor, ...] | None = None,
        steps_per_epoch: int | None = None,
        latency: Callable[[nn.Module], float] | None = None,
    ) -> None:
        self.model = shards.unwrap(model)
        layers = find_layers(self.model)
        self.recipe = with_kept(load_recipe(recipe), layers)
        self.example_inputs = example_inputs
        self.targets, self.dense = assign(layers, self.recipe.layers)
        quiet = ("skipped", "no rule", *(("grouped convolution",) if self.recipe.remove else ()))
        for item in self.dense:
            if item.reason not in quiet:
                warnings.warn(f"{item.layer.parameter} stays dense: {item.reason}", PrunusWarning, stacklevel=2)
        epochs = self.recipe.epochs
        two = self.recipe.bcr == "column-row" and any(target.scheme.name == "bcr" for target in self.targets)
        if steps_per_epoch is None and (self.recipe.method != "one-shot" or two or epochs.quantise):
            why = "bcr: column-row" if two else f"method {self.recipe.method}"
            raise TrainingError(f"{why}: steps_per_epoch missing, expected the length of the loader")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise TrainingError(f"steps_per_epoch {steps_per_epoch}: expected at least 1")
        self.steps_per_epoch = steps_per_epoch or 1
        self.n_steps = 0
        self._coupling: Coupling | None = None
        if self.recipe.remove is not None:
            coupling = Coupling(self.model, example_inputs, self.recipe, self.targets, self.dense, latency)
            self._coupling, self.targets, self.dense = coupling, coupling.targets, coupling.dense
        else:
            _warn_of_outputs(self.model, self.targets)
        self._at_work = tuple(target for target in self.targets if not target.kept)
        pruned = [target.layer for target in self.targets]
        self._masked = pruned + (self._coupling.layers if self._coupling else [])
        self._masks = Masks(self._masked)
        kept = [target.layer for target in self.targets if target.kept]
        self._masks.set({layer.parameter: array_of(layer.weight) != 0 for layer in kept})
        self._scores = Scores([target.layer for target in self._at_work], self.recipe.criterion, self.recipe.collect)
        sparsify = epochs.sparsify * self.steps_per_epoch
        self._ends = (sparsify // 2, sparsify) if two else (sparsify,)  # of the periods
        self._period = 0
        self._bases: dict[str, np.ndarray[Any, np.dtype[np.bool_]]] = {}  # the masks that the second period began with
        self._rounding: Rounding | None = None
        self._final = False
        self._method: Method | None = self._make(first_period(self._at_work, two))
        self._method.begin()
        self._keep_up()

    @property
    def epochs(self) -> int:
        """How many there are altogether."""
        return self.recipe.epochs.sparsify + self.recipe.epochs.recover + self.recipe.epochs.quantise

    @property
    def phase(self) -> Phase:
        """What the next step is a part of."""
        if self._method is not None:
            return "sparsify"
        return "quantise" if self._rounding is not None else "recover"

    @property
    def masks(self) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
        """The masks in force, by the parameter's name: True where a weight stays. Not to be written to."""
        return self._masks.arrays()

    def penalty(self) -> Tensor | float:
        """The method's term of the loss: a tensor without dimensions, or 0.0."""
        return self._method.penalty() if self._method is not None else 0.0

    def step(self) -> None:
        """Follow a step of the optimiser: schedule, and masks applied. Gradients have to be there still."""
        self.n_steps += 1
        if self._method is not None and self.recipe.criterion != "magnitude":
            self._scores.add()
        if self._method is not None:
            start = self._ends[self._period - 1] if self._period else 0
            self._method.step(self.n_steps - start)
        self._keep_up()
        self._masks.apply()

    def finalize(self) -> PruneReport:
        """Meet the goals now, whatever was left of the schedule, and say what became of each layer.

        Zeros are exact from here on, and nothing is rounded any more. May be called again, and masked steps may follow.
        Warns of layers whose sparsity isn't the one that was asked for: their groups don't permit it.
        """
        while self._method is not None:
            self._advance()
        self._masks.apply()
        self._final = True
        self._round_when_due()
        report = self._report()
        for layer in report.layers:
            if layer.note.startswith("asked"):
                warnings.warn(f"{layer.weight}: {layer.sparsity:.4f} zero, {layer.note}", PrunusWarning, stacklevel=2)
        return report

    def shrink(self) -> nn.Module:
        """A smaller copy of the network, without the filters and channels that a recipe with `remove` has masked.

        Raises TrainingError: the recipe removes nothing, or `finalize` wasn't called. ShrinkError: the copy answers
        otherwise than the network.
        """
        if self._coupling is None:
            raise TrainingError("shrink: the recipe has no remove, expected one such as remove: {macs: 0.5}")
        if self._method is not None:
            raise TrainingError("shrink: the masks aren't final, expected finalize() before")
        return self._coupling.shrink()

    def export(self, path: str | Path, example_inputs: Tensor | tuple[Tensor, ...] | None = None) -> None:
        """Write the network as ONNX, zeros exact, its batch free; checked against torch before it is in place.

        Where the recipe removes filters and the masks are final, it is the smaller one.

        Raises ExportError: torch can't export it, the file answers otherwise than the module, or there are no inputs to
        try.
        """
        from prunus.training.export import export_onnx

        inputs = example_inputs if example_inputs is not None else self.example_inputs
        with self._rounding.off() if self._rounding is not None else nullcontext():
            if self._coupling is not None and self._method is None:
                export_onnx(self._coupling.shrink(), path, inputs)
            else:
                export_onnx(self.model, path, inputs, self._report().layers)

    def state_dict(self) -> dict[str, Tensor]:
        """All that going on later takes, as flat tensors: masks, the method's state, the counters."""
        parts = {
            "masks": {name: _bits(mask) for name, mask in self._masks.arrays().items()},
            "scores": self._scores.state(),
            "method": self._method.state() if self._method is not None else {},
            "rounding": self._rounding.state() if self._rounding is not None else {},
        }
        if self._period and self._method is not None:
            parts["bases"] = {name: _bits(base) for name, base in self._bases.items()}
        if self._coupling is not None:
            parts["widths"] = self._coupling.state()
        counters = (self.n_steps, self._period, int(self._method is not None), int(self._final))
        return pack(parts, counters, identity(self.targets, self.recipe, self.steps_per_epoch))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state_dict` was called; the model's own weights are loaded by the caller, just before.

        Raises CheckpointError: the state is of another model, recipe, or number of steps per epoch.
        """
        expected = identity(self.targets, self.recipe, self.steps_per_epoch)
        parts, (n_steps, period, sparsifying, final) = unpack(state, expected)
        shapes = {layer.parameter: tuple(layer.weight.shape) for layer in self._masked}
        masks = {name: _unbits(bits, shapes[name]) for name, bits in parts["masks"].items()}
        self._masks = Masks(self._masked)
        self._masks.set(masks)
        if self._coupling is not None:
            self._coupling.load(parts.get("widths", {}))
        self._scores.load(parts["scores"])
        self.n_steps, self._period, self._method, self._final = n_steps, period, None, bool(final)
        if sparsifying:
            two = len(self._ends) == 2
            self._bases = {name: _unbits(bits, shapes[name]) for name, bits in parts.get("bases", {}).items()}
            goals = second_period(self._at_work, self._bases) if period else first_period(self._at_work, two)
            self._method = self._make(goals)
            self._method.load(parts["method"])
        self._round_when_due()
        if self._rounding is not None:
            self._rounding.load(parts.get("rounding", {}))

    def _make(self, goals: Sequence[Goal]) -> Method:
        """The method for the period that is on."""
        end, start = self._ends[self._period], self._ends[self._period - 1] if self._period else 0
        n_steps = end - start
        epochs = n_steps / self.steps_per_epoch
        work = Work(self.recipe, goals, n_steps, epochs, self._masks, self._scores, self._coupling)
        return METHODS[self.recipe.method](work)

    def _keep_up(self) -> None:
        """Enter the period or phase that the next step is a part of."""
        while self._method is not None and self.n_steps >= self._ends[self._period] and not self._scores.wants_more:
            self._advance()
        self._round_when_due()

    def _round_when_due(self) -> None:
        """Layers are rounded in the phase of that name, and only then."""
        epochs = self.recipe.epochs
        start = (epochs.sparsify + epochs.recover) * self.steps_per_epoch
        due = bool(epochs.quantise) and self.n_steps >= start and self._method is None and not self._final
        if due and self._rounding is None:
            self._rounding = Rounding(self.model)
        elif not due and self._rounding is not None:
            self._rounding.remove()
            self._rounding = None

    def _advance(self) -> None:
        """End a period: its masks stand, and the next one begins if there is one."""
        assert self._method is not None
        self._masks.set(self._method.settle())
        if self._period + 1 < len(self._ends):
            self._period += 1
            self._bases = self._masks.arrays()
            self._method = self._make(second_period(self._at_work, self._bases))
            self._method.begin()
        else:
            self._method = None

    def _report(self) -> PruneReport:
        reports = []
        n_zero = n_all = n_pruned = 0.0
        for target in self.targets:
            weight = array_of(target.layer.weight)
            sparsity = 1 - np.count_nonzero(weight) / weight.size
            note = ""
            if target.sparsity is not None and abs(sparsity - target.sparsity) > TOLERANCE and self._method is None:
                shared = self.recipe.scope == "global"
                note = "" if shared else f"asked {target.sparsity:.4g}: the nearest that its groups permit"
            # the mask, not the weights: one of those that stay may be zero by chance
            mask = self._masks.arrays().get(target.layer.parameter)
            if self._coupling is not None:
                note = self._coupling.note(target.layer.parameter, self._masks.arrays())
            elif (
                self._method is None
                and mask is not None
                and (misfit := check_stacked(mask, target.scheme, target.layer.n_gates))
            ):
                note = misfit.reason
            name, parameter = target.layer.name, target.layer.parameter
            reports.append(LayerReport(name, parameter, weight.shape, target.scheme, float(sparsity), note))
            n_zero, n_pruned, n_all = n_zero + sparsity * weight.size, n_pruned + weight.size, n_all + weight.size
        pruned = n_zero / n_pruned if n_pruned else 0.0
        for item in self.dense:
            weight = array_of(item.layer.weight)
            sparsity = 1 - np.count_nonzero(weight) / weight.size
            n_zero, n_all = n_zero + sparsity * weight.size, n_all + weight.size
            name, parameter = item.layer.name, item.layer.parameter
            reports.append(LayerReport(name, parameter, weight.shape, None, float(sparsity), item.reason))
        return PruneReport(tuple(reports), float(pruned), float(n_zero / n_all) if n_all else 0.0)


def _warn_of_outputs(model: nn.Module, targets: Sequence[Target]) -> None:
    """Filters that go take answers with them where a layer makes the network's outputs."""
    if not any(target.scheme.name == "filter" for target in targets):
        return
    makers = output_layers(model)
    for target in targets:
        if target.scheme.name == "filter" and target.layer.name in makers:
            warnings.warn(
                f"{target.layer.parameter}: its filters are outputs of the network, and {target.scheme} zeroes some; "
                "expected skip: true, or remove, which keeps them",
                PrunusWarning, stacklevel=3,
            )  # fmt: skip


def _bits(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Tensor:
    return torch.from_numpy(np.packbits(mask))


def _unbits(bits: Tensor, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.unpackbits(bits.cpu().numpy(), count=int(np.prod(shape))).astype(bool).reshape(shape)
