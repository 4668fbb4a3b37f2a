"""`prunus train`: a recipe with a network and data, trained, pruned and recovered, on one process or many.

A training is a row of steps: those of the dense network, where it has no weights yet, then those of the Pruner. What
happens in a step depends on seed and step only, so a run that goes on from a checkpoint is the run that was stopped.
Processes, devices and sharding are Hugging Face Accelerate's; `accelerate launch` and `torchrun` start them.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from prunus.errors import OutputError, PrunusWarning, RecipeError, TrainingError
from prunus.training import checkpoint, results, shards
from prunus.training.batches import augmented, batch_size, order, seed_step, share
from prunus.training.checkpoint import Checkpoint
from prunus.training.data import Samples, read_data
from prunus.training.evaluate import Place, Score, evaluate, recalibrate
from prunus.training.keep import with_kept
from prunus.training.layers import assign, find_layers
from prunus.training.losses import Kind, check_answers, distilled, task_loss
from prunus.training.networks import build, has_weights
from prunus.training.progress import TrainingStep
from prunus.training.pruner import Pruner
from prunus.training.rates import factor, make_optimizer
from prunus.training.recipe import Recipe
from prunus.training.results import Trained
from prunus.training.shrink.follow import find_groups
from prunus.training.snapshot import optimizer_of, set_optimizer, set_weights, weights_of
from prunus.training.standard import Data, Network
from prunus.training.state import describe


@final
@dataclass(frozen=True)
class Audience:
    """Who is told what: `step` every step, `line` now and then. On other processes than the first nobody is."""

    step: Callable[[TrainingStep], None] = lambda progress: None
    line: Callable[[str], None] = lambda text: None


def train(
    recipe: Recipe, output: Path, fresh: bool = False, threads: int | None = None, audience: Audience | None = None
) -> Trained:
    """Train as the recipe says, and write to the folder `output` what `results.write` says, metrics.jsonl and
    checkpoints. Goes on from the newest checkpoint there, unless `fresh`.

    Raises RecipeError: no model or data in the recipe. TrainingError: data or a model that can't be had, or a loss that
    isn't finite. CheckpointError: the checkpoint there is of another model or recipe. OutputError: the folder can't be
    written. Warns (PrunusWarning) where the network is no better than chance, dense or just pruned.
    """
    if recipe.model is None or recipe.data is None:
        raise RecipeError(f"{'model' if recipe.model is None else 'data'}: missing, prunus train needs it")
    make_folder(output)
    run = _Run(recipe, recipe.model, recipe.data, output, threads, audience or Audience())
    run.start(fresh)
    while run.step < run.n_steps:
        run.advance()
    return run.finish()


@final
class _Run:
    """A training under way. step: how many are done, of n_steps, the first n_dense of which are dense."""

    def __init__(
        self, recipe: Recipe, network: Network, data: Data, output: Path, threads: int | None, audience: Audience
    ) -> None:
        self.recipe, self.source, self.data, self.output, self.audience = recipe, network, data, output, audience
        # autocast is our own: evaluation has it too; without `cpu` processes without a GPU wouldn't find each other
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no")
        if threads is not None:
            torch.set_num_threads(threads)
        self.accelerator = accelerator
        self.place = Place(shards.rank(), accelerator.num_processes, accelerator.device, recipe.precision == "bf16")
        self.samples, self.validation = read_data(data, network.input)
        self.size = batch_size(data.batch_size, len(self.samples), self.place.world)
        self.per_epoch = len(self.samples) // self.size
        plain = build(network, recipe.seed)
        try_network(plain, recipe.loss, self.samples, self.validation)
        try_rules(plain, recipe, self._example())
        layers = {name: [list(tensor.shape)] for name, tensor in plain.state_dict().items()}
        self.identity = describe(layers, recipe, self.per_epoch)
        self.model, optimizer = accelerator.prepare(plain, make_optimizer(recipe.optimizer, plain))
        self.optimizer: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self.network = shards.unwrap(self.model)
        dense = recipe.dense is not None and not has_weights(network)
        self.n_dense = recipe.dense.epochs * self.per_epoch if dense and recipe.dense is not None else 0
        epochs = recipe.epochs
        self.n_steps = self.n_dense + (epochs.sparsify + epochs.recover + epochs.quantise) * self.per_epoch
        self.step = 0
        self.scores: dict[str, Score] = {}
        self.pruner: Pruner | None = None
        self.teacher: nn.Module | None = None
        self._lost, self._n_lost = 0.0, 0
        self._sequence: tuple[int, Tensor] | None = None

    def start(self, fresh: bool) -> None:
        """Begin, or go on from a checkpoint."""
        if fresh and self.place.rank == 0:
            checkpoint.clear(self.output)
        self.accelerator.wait_for_everyone()
        saved = checkpoint.newest(self.output, self.identity)
        if saved is not None:
            self._restore(saved)
        if self.place.rank == 0:
            results.cut_metrics(self.output, self.step)
        if self.pruner is None and self.step == self.n_dense:
            self._begin_pruning()

    def advance(self) -> None:
        """One step of the optimiser, and what is due after it."""
        phase = self._phase
        loss = self._train_step()
        self.step += 1
        self._lost, self._n_lost = self._lost + loss, self._n_lost + 1
        self._tell_step(phase, loss)
        self._watch_masks()
        if self.step % self.per_epoch == 0:
            self._end_epoch(phase)
        if self.pruner is None and self.step == self.n_dense:
            self._save()
            self._begin_pruning()
        elif self._due():
            self._save()

    def finish(self) -> Trained:
        """Exact zeros, statistics of BatchNorm made anew, the last score, and files."""
        assert self.pruner is not None
        report = self.pruner.finalize()
        self._watch_masks()
        self._recalibrate()
        self.scores["recovered"] = self._evaluate()
        weights = weights_of(self.network)
        # where filters go for real it is another network that is written
        smaller = self.pruner.shrink() if self.recipe.remove is not None else None
        trained = Trained(report, dict(self.scores), self.output)
        if self.place.rank == 0:
            plain = build(self.source, self.recipe.seed)
            set_weights(plain, weights)
            results.write(trained, self.recipe, plain, self._example(), smaller)
        self.accelerator.wait_for_everyone()
        return trained

    @property
    def _phase(self) -> str:
        return "dense" if self.pruner is None else self.pruner.phase

    def _train_step(self) -> float:
        """Forward, backward, optimiser and Pruner; the mean loss over all processes.

        Raises TrainingError: it isn't finite.
        """
        place, seed = self.place, self.recipe.seed
        seed_step(seed, self.step, place.rank)
        x, y = (tensor.to(place.device) for tensor in self._batch())
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.model.train()
        with place.autocast():
            answers = self.model(x)
            loss = task_loss(self.recipe.loss, answers, y)
            if self.teacher is not None and self.recipe.distil is not None:
                with torch.no_grad():
                    taught = self.teacher(x)
                loss = distilled(self.recipe.loss, loss, answers, taught, self.recipe.distil)
        if self.pruner is not None:
            loss = loss + self.pruner.penalty()
        lost = place.mean(float(loss.detach()))
        if not math.isfinite(lost):
            raise TrainingError(self._diverged(self.step + 1, f"the loss is {lost}"))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.pruner is not None:
            self.pruner.step()
        return lost

    def _batch(self) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(self.step, self.per_epoch)
        if self._sequence is None or self._sequence[0] != epoch:
            self._sequence = epoch, order(len(self.samples), self.recipe.seed, epoch)
        whole = self._sequence[1][number * self.size : (number + 1) * self.size]
        x, y = self.samples.take(share(whole, self.place.rank, self.place.world))
        how, seed = self.data.augment, self.recipe.seed
        return augmented(x, how, seed, self.step, self.place.rank, self.place.world), y

    def _rate(self) -> float:
        settings, dense = self.recipe.optimizer, self.recipe.dense
        step, n_steps, rate = self.step - self.n_dense, self.n_steps - self.n_dense, settings.rate
        if self.step < self.n_dense:
            assert dense is not None
            step, n_steps, rate = self.step, self.n_dense, dense.rate or settings.rate
        elif settings.restart:
            sparsify = self.recipe.epochs.sparsify * self.per_epoch
            step, n_steps = (step, sparsify) if step < sparsify else (step - sparsify, n_steps - sparsify)
        return rate * factor(settings, step, n_steps, self.per_epoch)

    def _begin_pruning(self) -> None:
        """The dense network is there: its score and weights are kept, and the Pruner begins."""
        self.scores["dense"] = self._evaluate()
        self.audience.line(f"dense: {self.scores['dense']}")
        if self.scores["dense"].chance:
            warnings.warn(
                "the dense network is no better than chance: expected model.weights, or dense.epochs to train it first",
                PrunusWarning, stacklevel=2,
            )  # fmt: skip
        weights = weights_of(self.network)
        if self.place.rank == 0:
            results.write_weights(self.output / results.DENSE, weights)
        self.optimizer.state.clear()
        self._learn_from(weights)
        self.pruner = self._pruner()
        self._watch_masks()

    def _pruner(self) -> Pruner:
        return Pruner(self.network, self.recipe, self._example().to(self.place.device), self.per_epoch)

    def _example(self) -> Tensor:
        return self.validation.take(range(min(2, len(self.validation))))[0]

    def _learn_from(self, weights: dict[str, Tensor]) -> None:
        if self.recipe.distil is not None:
            self.teacher = build(self.source, self.recipe.seed)
            set_weights(self.teacher, weights)
            self.teacher.to(self.place.device).eval().requires_grad_(False)

    def _watch_masks(self) -> None:
        """As soon as the masks stand: recalibrate, and say how much is left before anything is recovered."""
        if self.pruner is None or "pruned" in self.scores:
            return
        early = self.recipe.method == "one-shot" and self.recipe.bcr == "joint"
        stands = self.pruner.phase != "sparsify" or (early and bool(self.pruner.masks))
        if not stands:
            return
        self._recalibrate()
        score = self.scores["pruned"] = self._evaluate()
        self.audience.line(f"pruned: {score}")
        if score.chance and not self.scores["dense"].chance:
            gentler = "method gradual or admm, or " if self.recipe.method == "one-shot" else ""
            warnings.warn(
                f"right after pruning the network is no better than chance ({score}, dense {self.scores['dense']}): "
                f"little is left to recover from; expected {gentler}a lower sparsity",
                PrunusWarning, stacklevel=2,
            )  # fmt: skip

    def _recalibrate(self) -> None:
        recalibrate(self.network, self.samples, self.recipe.recalibrate, self.size, self.recipe.seed, self.place)

    def _evaluate(self) -> Score:
        return evaluate(self.network, self.validation, self.recipe.loss, self.size, self.place)

    def _tell_step(self, phase: str, loss: float) -> None:
        if self.place.rank == 0:
            self.audience.step(TrainingStep(phase, self.step, self.n_steps, loss))

    def _end_epoch(self, phase: str) -> None:
        score, epoch = self._evaluate(), self.step // self.per_epoch
        if self.place.rank != 0:
            return
        sparsity = 0.0
        if self.pruner is not None and (masks := self.pruner.masks):
            sparsity = 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(m.size for m in masks.values())
        row: dict[str, Any] = {
            "step": self.step, "epoch": epoch, "phase": phase, "loss": self._lost / self._n_lost,
            "validation_loss": score.loss, "accuracy": score.accuracy, "sparsity": sparsity,
        }  # fmt: skip
        results.add_metrics(self.output, row)
        n_epochs = self.n_steps // self.per_epoch
        self.audience.line(f"epoch {epoch} of {n_epochs}, {phase}: {score}, sparsity {sparsity:.2%}")
        self._lost, self._n_lost = 0.0, 0

    def _due(self) -> bool:
        how = self.recipe.checkpoint
        every = how.steps or how.epochs * self.per_epoch
        return self.step % every == 0 or self.step == self.n_steps

    def _save(self) -> None:
        """Write a checkpoint. Raises TrainingError: weights aren't finite, as after gradients that weren't: going on
        from there would never be right again."""
        weights = weights_of(self.network)
        learned = [name for name, _ in self.network.named_parameters()]  # buffers may be masks of infinities
        bad = next((name for name in learned if not bool(weights[name].isfinite().all())), None)
        if bad is not None:
            raise TrainingError(self._diverged(self.step, f"{bad} isn't finite"))
        tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_of(self.optimizer).items()}
        if self.pruner is not None:
            tensors |= {f"pruner/{name}": tensor for name, tensor in self.pruner.state_dict().items()}
        scores = {name: [score.loss, score.accuracy, score.classes] for name, score in self.scores.items()}
        said = {"scores": scores, "lost": [self._lost, self._n_lost]}
        if self.place.rank == 0:
            checkpoint.write(self.output, Checkpoint(self.step, tensors, said), self.identity)
        self.accelerator.wait_for_everyone()

    def _restore(self, saved: Checkpoint) -> None:
        self.step = saved.step
        self.scores = {name: Score(*values) for name, values in saved.said["scores"].items()}
        self._lost, self._n_lost = saved.said["lost"]
        state = saved.part("pruner")
        if state:
            self.pruner = self._pruner()
            self._learn_from(results.read_dense(self.output) if self.recipe.distil is not None else {})
        set_weights(self.network, saved.part("model"))
        set_optimizer(self.optimizer, saved.part("optimizer"))
        if self.pruner is not None:
            self.pruner.load_state_dict(state)
        self.audience.line(f"going on from step {self.step} of {self.n_steps}")

    def _diverged(self, step: int, found: str) -> str:
        kept = checkpoint.last_step(self.output)
        good = f"the checkpoint of step {kept} is kept" if kept is not None else "there is no checkpoint yet"
        return f"step {step}: {found}, {good} in {self.output}; expected a finite one: try a lower optimizer.rate"


@torch.no_grad()
def try_network(plain: nn.Module, loss: Kind, *several: Samples) -> None:
    """Does the network take the data? Else says so before an hour is spent.

    Raises TrainingError: no, and why.
    """
    plain.eval()
    for samples in several:
        x, y = samples.take(range(min(2, len(samples))))
        try:
            answers = plain(x)
        except Exception as error:  # the user's code may raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise TrainingError(f"model: can't take x {list(x.shape)} of {samples.where}: {reason}") from error
        check_answers(loss, answers, y, samples.classes, samples.where)


def try_rules(plain: nn.Module, recipe: Recipe, x: Tensor) -> None:
    """Do the rules hit layers that can be pruned? As the Pruner will ask, but before the dense network is trained.

    Raises RuleError, SchemeError, UnsupportedError: no, and why.
    """
    layers = find_layers(plain)
    assign(layers, with_kept(recipe, layers).layers)
    if recipe.remove is not None:
        find_groups(plain, x)


def make_folder(path: Path) -> None:
    """Make a folder for results. Raises OutputError: it can't be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be made: {error.strerror or error}") from error
