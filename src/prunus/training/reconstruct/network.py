"""Pruning of a torch network with a few hundred unlabelled inputs: layer by layer by least squares, and then, if
wanted, by distillation from what it was before.
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import CalibrationError, PrunusWarning, RecipeError, RuleError
from prunus.pruning.one_shot import LayerReport, mean_sparsity
from prunus.sparsity.project import TOLERANCE, resolve_sparsity
from prunus.sparsity.scheme import Scheme
from prunus.training.layers import Layer, assign, find_layers
from prunus.training.recipe import Recipe, load_recipe
from prunus.training.reconstruct.distil import distil as distil_network
from prunus.training.reconstruct.sequence import Batch, Goal, Outcome, reconstruct_in_sequence

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Options:
    """How a network is reconstructed.

    damping: how strongly weights are held where they were, against what the data say. samples: least squares takes
    whole batches, evenly, until it has so many inputs; more say little that is new. distil: epochs of distillation
    over the calibration data afterwards; rate: its highest learning rate,
    relative to the size of the weights. seed: of positions and of the order of
    batches.
    """

    damping: float = 0.01
    samples: int = 256
    distil: int = 0
    rate: float = 1.5e-3
    seed: int = 0


DEFAULTS = Options()


@final
@dataclass(frozen=True)
class LayerError:
    """The relative error of a layer's outputs on the calibration data, reading what the sparse network before it makes:
    root of squared error over squared outputs of the dense network. magnitude: pruned one-shot by magnitude in its
    place; reconstructed: as it was done. Distillation comes later."""

    layer: LayerReport
    magnitude: float
    reconstructed: float


@final
@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What became of each weight: all layers, the errors of those that were reconstructed, in the order in which the
    network calls them, their masks by parameter. sparsity: over all weights that were pruned."""

    layers: tuple[LayerReport, ...]
    errors: tuple[LayerError, ...]
    masks: Mapping[str, Bools]
    sparsity: float


def reconstruct(
    model: nn.Module,
    recipe: str | Path | Mapping[str, Any] | Recipe,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    options: Options = DEFAULTS,
    *,
    report: Callable[[str], None] | None = None,
) -> Reconstruction:
    """Prune a network in place. Only `layers` of the recipe count: which, by what scheme, how far.

    batches: inputs, batch first, a tensor or a tuple of them; no labels. The network runs in evaluation mode and is
    left in the mode it was in. Biases change, and running means of a BatchNorm right behind a layer without a bias;
    `distil` trains all parameters that want gradients. report: gets a line on each step.

    Raises RecipeError, RuleError: as `load_recipe`, `assign`; or no named layer is called. CalibrationError: no
    batches, or values that aren't finite. Warns (PrunusWarning) of layers that were named and stay dense.
    """
    given = check_batches(batches)
    rules = load_recipe(recipe).layers
    if kept := next((rule for rule in rules if rule.keep), None):
        raise RecipeError(f"rule {kept.match!r}: keep, expected skip, or a scheme: zeros are chosen anew here")
    targets, dense = assign(find_layers(model), rules)
    goals = [
        Goal(target.layer.parameter, target.scheme, resolve_sparsity(target.scheme, target.sparsity))
        for target in targets
    ]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        learned = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
        outcomes, refused = prune_against(model, copy.deepcopy(model), goals, learned, given, options, report)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not outcomes:
        raise RuleError(f"no layer is left to prune ({'; '.join(f'{name}: {why}' for name, why in refused.items())})")
    reasons = {item.layer.parameter: item.reason for item in dense} | refused
    for name, reason in reasons.items():
        if reason not in ("skipped", "no rule"):
            warnings.warn(f"{name} stays dense: {reason}", PrunusWarning, stacklevel=2)
    schemes = {t.layer.parameter: (t.scheme, t.sparsity) for t in targets if t.layer.parameter not in refused}
    layers = [_report(layer, schemes.get(layer.parameter), reasons) for layer in find_layers(model)]
    by_name = {layer.weight: layer for layer in layers}
    errors = tuple(LayerError(by_name[o.parameter], o.magnitude, o.error) for o in outcomes)
    masks = {o.parameter: o.mask for o in outcomes}
    return Reconstruction(tuple(layers), errors, masks, mean_sparsity(layers))


def _report(layer: Layer, goal: tuple[Scheme, float | None] | None, reasons: Mapping[str, str]) -> LayerReport:
    weight = layer.weight.detach()
    sparsity = 1 - int(torch.count_nonzero(weight)) / max(weight.numel(), 1)
    if goal is None:
        note = reasons.get(layer.parameter, "")
        return LayerReport(layer.name, layer.parameter, tuple(weight.shape), None, sparsity, note)
    note = off_target(*goal, sparsity)
    return LayerReport(layer.name, layer.parameter, tuple(weight.shape), goal[0], sparsity, note)


def off_target(scheme: Scheme, asked: float | None, sparsity: float) -> str:
    """What to note of a layer whose zeros are not as many as were asked for, else nothing."""
    wanted = resolve_sparsity(scheme, asked)
    return f"asked {wanted:.4g}: the nearest that its groups permit" if abs(sparsity - wanted) > TOLERANCE else ""


def prune_against(
    sparse: nn.Module,
    dense: nn.Module,
    goals: Sequence[Goal],
    learned: Mapping[str, Tensor],
    batches: Sequence[Batch],
    options: Options,
    report: Callable[[str], None] | None,
    fixed: frozenset[str] = frozenset(),
    between: Callable[[list[Outcome], dict[str, str]], None] = lambda *_: None,
) -> tuple[list[Outcome], dict[str, str]]:
    """Both steps on `sparse`, a copy of `dense`, both in evaluation mode. fixed: weights whose layer keeps its bias.
    between: called before distillation, if there is one."""
    said = report or (lambda line: None)

    def tell(o: Outcome) -> None:
        said(f"{o.parameter}: error {o.error:.3f}, by magnitude {o.magnitude:.3f}")

    outcomes, refused = reconstruct_in_sequence(
        sparse,
        dense,
        goals,
        evenly(batches, options.samples),
        damping=options.damping,
        seed=options.seed,
        fixed=fixed,
        report=tell,
    )
    if options.distil and outcomes:
        between(outcomes, refused)
        distil_network(
            sparse, dense, {o.parameter: o.mask for o in outcomes}, learned, batches, options.distil,
            rate=options.rate, seed=options.seed,
            report=lambda epoch, loss: said(f"distillation {epoch + 1}/{options.distil}: loss {loss:.4f}"),
        )  # fmt: skip
    return outcomes, refused


def evenly(batches: Sequence[Batch], samples: int) -> Sequence[Batch]:
    """Every so many of the batches, which together have `samples` inputs or a few more; all where they have fewer."""
    n_wanted = -(-samples * len(batches) // sum(len(batch[0]) for batch in batches))
    step = len(batches) / max(n_wanted, 1)
    return batches if step <= 1 else [batches[int(i * step)] for i in range(n_wanted)]


def check_batches(batches: Iterable[Tensor | tuple[Tensor, ...]]) -> list[Batch]:
    """The batches as tuples.

    Raises CalibrationError: none, one that isn't of tensors, is empty, or isn't finite.
    """
    given: list[Batch] = []
    for number, batch in enumerate(batches):
        parts = (batch,) if isinstance(batch, Tensor) else tuple(batch) if isinstance(batch, tuple | list) else ()
        if not parts or not all(isinstance(part, Tensor) and part.ndim and len(part) for part in parts):
            raise CalibrationError(
                f"calibration batch {number}: found {type(batch).__name__}, expected a tensor or a tuple of them, "
                "batch first and not empty"
            )
        for part in parts:
            if part.is_floating_point() and not bool(torch.isfinite(part).all()):
                raise CalibrationError(f"calibration batch {number} has NaN or infinity")
        given.append(parts)
    if not given:
        raise CalibrationError("calibration: no batches; reconstruction needs some inputs, as a few hundred images")
    return given
