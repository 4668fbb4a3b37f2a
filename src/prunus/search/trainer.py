"""`prunus search`: a network trained if need be, its widths searched, the weights fine-tuned, all in one run of steps.

As in `prunus.training.trainer` what happens in a step depends on seed and step only, and a run goes on from its newest
checkpoint. One process.
"""

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from prunus.errors import PrunusWarning, TrainingError
from prunus.search import choose
from prunus.search.branches import branched, merge
from prunus.search.costs import Cost, Latency, macs, weights
from prunus.search.meet import CALIBRATED, MISSED, calibrate, latency_of, meet, share_of, steps_down
from prunus.search.pas import Found, WidthSearch
from prunus.search.recipe import SearchRecipe
from prunus.search.times import compiled
from prunus.training import checkpoint
from prunus.training.batches import augmented, batch_size, order, seed_step
from prunus.training.checkpoint import Checkpoint
from prunus.training.data import read_data
from prunus.training.evaluate import Place, Score, evaluate, recalibrate
from prunus.training.losses import task_loss
from prunus.training.networks import build, has_weights
from prunus.training.progress import TrainingStep
from prunus.training.rates import factor, make_optimizer
from prunus.training.results import add_metrics, cut_metrics
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.widths import lanes
from prunus.training.snapshot import optimizer_of, set_optimizer, set_weights, weights_of
from prunus.training.state import describe
from prunus.training.trainer import Audience, make_folder, try_network

COSTS: dict[str, Callable[[Groups], Cost]] = {"macs": macs, "weights": weights}
MOST_WIDTHS = 12  # that a line of progress shows


@final
class SearchRun:
    """A search under way. step: how many are done, of n_steps; first n_dense of a dense network, then n_search.

    Raises TrainingError: data or a model that can't be had. UnsupportedError, ShrinkError: as `WidthSearch`, before
    anything is trained. CheckpointError: the checkpoint there is of another model or recipe. OutputError: the folder
    can't be written.
    """

    def __init__(
        self, recipe: SearchRecipe, output: Path, fresh: bool = False, threads: int | None = None,
        audience: Audience | None = None,
    ) -> None:  # fmt: skip
        make_folder(output)
        self.recipe, self.output, self.threads, self.audience = recipe, output, threads, audience or Audience()
        if threads is not None:
            torch.set_num_threads(threads)
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.place = Place(0, 1, device or torch.device("cpu"), recipe.precision == "bf16")
        self.samples, self.validation = read_data(recipe.data, recipe.model.input)
        self.size = batch_size(recipe.data.batch_size, len(self.samples), 1)
        self.per_epoch = len(self.samples) // self.size
        self.plain = build(recipe.model, recipe.seed)
        try_network(self.plain, recipe.loss, self.samples, self.validation)
        self.plain.to(self.place.device)
        layers = {name: [list(tensor.shape)] for name, tensor in self.plain.state_dict().items()}
        self.identity = describe(layers, recipe, self.per_epoch)
        self.optimizer = make_optimizer(recipe.optimizer, self.plain)
        epochs, trained = recipe.epochs, has_weights(recipe.model)
        self.n_dense = 0 if trained else epochs.dense * self.per_epoch
        self.n_search = epochs.search * self.per_epoch if recipe.method == "pas" else 0
        self.n_steps = self.n_dense + (epochs.search + epochs.finetune) * self.per_epoch
        self.step = 0
        self.search: WidthSearch | None = None
        self.latency: Latency | None = None
        self.found: Found | None = None
        self.dense_ms = 0.0
        self.scores: dict[str, Score] = {}
        self.spent_s = {"dense": 0.0, "search": 0.0, "finetune": 0.0}
        self._lost, self._n_lost = 0.0, 0
        self._sequence: tuple[int, Tensor] | None = None
        if fresh:
            checkpoint.clear(output)
        saved = checkpoint.newest(output, self.identity)
        if saved is not None:
            self._restore(saved)
        else:
            self._rehearse()
        cut_metrics(output, self.step)

    def run(self) -> None:
        """All steps that aren't done yet, then BatchNorm's statistics and the last score."""
        self._turn()
        while self.step < self.n_steps:
            start, phase = time.perf_counter(), self.phase
            loss = self._train_step()
            self.spent_s[phase] += time.perf_counter() - start
            self.step += 1
            self._lost, self._n_lost = self._lost + loss, self._n_lost + 1
            self.audience.step(TrainingStep(phase, self.step, self.n_steps, loss, self._widths_text()))
            if self.step % self.per_epoch == 0:
                self._end_epoch(phase)
            elif phase == "search" and self.step - self.n_dense in self._marks:
                self._calibrate()
            self._turn()
            if self._due():
                self._save()
        self._recalibrate()
        self.scores["found"] = self._evaluate()

    @property
    def phase(self) -> str:
        """dense, search or finetune."""
        return "dense" if self.search is None else "search" if self.found is None else "finetune"

    @property
    def network(self) -> nn.Module:
        """What is trained: the same weights in all phases."""
        return self.plain if self.search is None else self.search.network

    def example(self) -> Tensor:
        """Two samples."""
        return self.validation.take(range(min(2, len(self.validation))))[0].to(self.place.device)

    def measured_ms(self, model: nn.Module) -> float:
        """Of a network, compiled."""
        return compiled(model, self.example(), self.threads).ms

    def _turn(self) -> None:
        """Begin and end the search where it is time."""
        if self.search is None and self.step == self.n_dense:
            self.scores["dense"] = self._evaluate()
            self.audience.line(f"dense: {self.scores['dense']}")
            if self.scores["dense"].chance:
                warnings.warn(
                    "the dense network is no better than chance: expected model.weights, or epochs.dense to train it "
                    "first", PrunusWarning, stacklevel=2,
                )  # fmt: skip
            self.optimizer.state.clear()
            self._begin()
        if self.search is not None and self.found is None and self.step == self.n_dense + self.n_search:
            self._decide(self.search)

    def _rehearse(self) -> None:
        """What can't be searched, or not within the budget, says so before the network is trained for that."""
        self._begin()
        self.search = None

    def _begin(self, going_on: bool = False, factor_of: float | None = None) -> None:
        """Make the search. factor_of: of its latency, where a run is going on."""
        budget = self.recipe.budget
        if budget.latency is not None:
            self.latency = latency = latency_of(self.plain, self.example(), self.threads, self.audience.line, factor_of)
            self.dense_ms = latency.whole
            share = share_of(latency, budget.latency) if factor_of is None else 1.0  # it is restored
            cost_of: Callable[[Groups], Cost] = lambda _: latency  # noqa: E731
        else:
            kind = "macs" if budget.macs is not None else "weights"
            share, cost_of = budget.macs or budget.weights or 1.0, COSTS[kind]
        self.search = WidthSearch(self.plain, self.example(), cost_of, share, max(self.n_search, 1))
        self.search.network.to(self.place.device)
        if not going_on:
            self._chosen(self.round_to[-1])  # says so now if it can't be done

    def _decide(self, search: WidthSearch) -> None:
        """The widths stand from now on."""
        budget_ms = self.recipe.budget.latency
        if self.latency is None or budget_ms is None:
            keep = self._chosen(self.round_to[-1])
        else:
            line, steps = self.audience.line, self.round_to
            best = meet(search, self.latency, budget_ms, self.measured_ms, self._chosen, line, steps)[0]
            keep = best.keep
            if abs(off := best.ms / budget_ms - 1) > MISSED:
                warnings.warn(
                    f"budget {budget_ms:g} ms: missed by {abs(off):.0%}, {best.ms:.4g} ms measured; "
                    "no widths that were tried come nearer", PrunusWarning, stacklevel=2,
                )  # fmt: skip
        self.found = search.freeze(keep)
        self.optimizer.state.clear()
        self._recalibrate()
        self.scores["searched"] = self._evaluate()
        self.audience.line(f"widths stand, cost {self.found.cost:.2%}: {self.scores['searched']}")

    @property
    def round_to(self) -> tuple[int, ...]:
        """Of how many channels widths are multiples: what is tried, in this order."""
        asked = self.recipe.round_to
        if asked is None:
            return (1,) if self.latency is None else steps_down(lanes())
        return (lanes() if asked == "auto" else asked,)

    def _chosen(self, step: int) -> choose.Bools:
        """What lives, as the method has it, in widths of multiples of `step` channels."""
        search = self.search
        assert search is not None
        if self.recipe.method == "pas":
            return search.trimmed(step)
        merged = merge(self.plain) if branched(self.plain) else self.plain
        worth = choose.magnitude(merged, search.groups)
        if self.recipe.method == "bn-gamma":
            worth = choose.bn_gamma(self.plain, merged, search.groups)
        by = choose.uniform if self.recipe.method == "uniform" else choose.by_scores
        keep = by(search.groups, worth, search.cost, search.budget)
        if step > 1:
            keep = choose.rounded(search.groups, worth, keep, search.cost, search.budget, step)
        return keep

    def _train_step(self) -> float:
        """Forward, backward, optimiser and search; the loss of the task.

        Raises TrainingError: it isn't finite.
        """
        seed_step(self.recipe.seed, self.step, 0)
        x, y = (tensor.to(self.place.device) for tensor in self._batch())
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.network.train()
        with self.place.autocast():
            loss = task_loss(self.recipe.loss, self.network(x), y)
        lost = float(loss.detach())
        if not math.isfinite(lost):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {lost}; expected a finite one: try a lower optimizer.rate"
            )
        if self.search is not None:
            loss = loss + self.search.penalty()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.search is not None:
            self.search.step()
        return lost

    def _batch(self) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(self.step, self.per_epoch)
        if self._sequence is None or self._sequence[0] != epoch:
            self._sequence = epoch, order(len(self.samples), self.recipe.seed, epoch)
        x, y = self.samples.take(self._sequence[1][number * self.size : (number + 1) * self.size].tolist())
        return augmented(x, self.recipe.data.augment, self.recipe.seed, self.step, 0, 1), y

    def _rate(self) -> float:
        settings, first = self.recipe.optimizer, self.n_dense + self.n_search
        if self.phase == "dense":
            return settings.rate * factor(settings, self.step, self.n_dense, self.per_epoch)
        if self.phase == "search":
            return settings.rate * self.recipe.search_rate
        return settings.rate * factor(settings, self.step - first, self.n_steps - first, self.per_epoch)

    def _recalibrate(self) -> None:
        recipe = self.recipe
        recalibrate(self.network, self.samples, recipe.recalibrate, self.size, recipe.seed, self.place)

    def _evaluate(self) -> Score:
        return evaluate(self.network, self.validation, self.recipe.loss, self.size, self.place)

    def _widths(self) -> list[int]:
        """How many channels of each bundle live."""
        if self.search is None:
            return []
        keep = self.search.network.keep()
        return [int(keep[members].sum()) for members in self.search.groups.bundles]

    def _widths_text(self) -> str:
        if self.search is None or self.found is not None:
            return ""
        shown = self.search.history[-1] if self.search.history else self._widths()
        more = " ..." if len(shown) > MOST_WIDTHS else ""
        return f", widths {' '.join(map(str, shown[:MOST_WIDTHS]))}{more}"

    def _end_epoch(self, phase: str) -> None:
        score, epoch, said = self._evaluate(), self.step // self.per_epoch, ""
        row: dict[str, object] = {
            "step": self.step, "epoch": epoch, "phase": phase, "loss": self._lost / self._n_lost,
            "validation_loss": score.loss, "accuracy": score.accuracy,
        }  # fmt: skip
        if self.search is not None:
            keep = self.search.network.keep()
            found = self.search.found(keep)
            row |= {"cost": found.cost, "widths": self._widths()}
            said = f", cost {found.cost:.2%}"
            if phase == "search" and (ms := self._calibrate()) is not None:
                row["ms"], said = ms, f"{said}, {ms:.3f} ms"
        add_metrics(self.output, row)
        self.audience.line(f"epoch {epoch} of {self.n_steps // self.per_epoch}, {phase}: {score}{said}")
        self._lost, self._n_lost = 0.0, 0

    @property
    def _marks(self) -> set[int]:
        return {round(share * self.n_search) for share in CALIBRATED}

    def _calibrate(self) -> float | None:
        """Milliseconds of the network as it is, where the budget is of them; the search then goes by that."""
        budget_ms = self.recipe.budget.latency
        if self.search is None or self.latency is None or budget_ms is None:
            return None
        keep = self.search.network.keep()
        ms = self.measured_ms(self.search.shrink(keep))
        calibrate(self.search, self.latency, budget_ms, keep, ms)
        return ms

    def _due(self) -> bool:
        how = self.recipe.checkpoint
        return self.step % (how.steps or how.epochs * self.per_epoch) == 0 or self.step == self.n_steps

    def _save(self) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in weights_of(self.plain).items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_of(self.optimizer).items()}
        if self.search is not None:
            tensors |= {f"search/{name}": tensor for name, tensor in self.search.state_dict().items()}
        said = {
            "scores": {name: [score.loss, score.accuracy, score.classes] for name, score in self.scores.items()},
            "lost": [self._lost, self._n_lost], "spent_s": self.spent_s, "dense_ms": self.dense_ms,
            "factor": None if self.latency is None else self.latency.factor,
        }  # fmt: skip
        checkpoint.write(self.output, Checkpoint(self.step, tensors, said), self.identity)

    def _restore(self, saved: Checkpoint) -> None:
        self.step, said = saved.step, saved.said
        self.scores = {name: Score(*values) for name, values in said["scores"].items()}
        self._lost, self._n_lost = said["lost"]
        self.spent_s = said["spent_s"]
        set_weights(self.plain, saved.part("model"))
        set_optimizer(self.optimizer, saved.part("optimizer"))
        if state := saved.part("search"):
            self._begin(True, said["factor"])
            assert self.search is not None
            self.search.load_state_dict(state)
            if self.search.network.gates.frozen:
                self.found = self.search.found(self.search.network.keep())
        self.dense_ms = said["dense_ms"]
        self.audience.line(f"going on from step {self.step} of {self.n_steps}")
