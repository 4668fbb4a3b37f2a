"""How accurate a network is under a mapping, quickly: pruned one-shot, retrained for a few steps, tried on samples that
neither training nor the last test sees. The same mapping, network, data and effort give the same number.
"""

import copy
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.errors import PrunusWarning, TrainingError
from prunus.mapping.memory import Memory
from prunus.mapping.names import parameters_of
from prunus.mapping.search import Mapping, described, digest
from prunus.mapping.space import Space
from prunus.training.batches import augmented, order, seed_step
from prunus.training.data import Samples
from prunus.training.evaluate import Place, evaluate, recalibrate
from prunus.training.layers import find_layers
from prunus.training.losses import check_answers, distilled, task_loss
from prunus.training.pruner import Pruner
from prunus.training.rates import factor, make_optimizer
from prunus.training.recipe import Distil
from prunus.training.standard import Augment, Optimizer

BATCHES = 8  # from which BatchNorm takes its statistics anew
EVALUATED = 500  # samples at a time


@final
@dataclass(frozen=True)
class Effort:
    """What an evaluation takes. steps: of masked retraining. held_out: samples on which accuracy is taken, at most a
    third of all. distil: half of the loss is to answer as the dense network does. bf16: mixed, weights stay float32."""

    steps: int = 40
    batch_size: int = 64
    held_out: int = 2000
    distil: bool = True
    bf16: bool = False
    seed: int = 0
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        parts = {"augment": self.augment.model_dump(mode="json"), "optimizer": self.optimizer.model_dump(mode="json")}
        return {**asdict(self), **parts}


@final
class Evaluator:
    """Fraction of right answers of a network under a mapping.

    model: trained, and left as it is; the file that the space is of, as a module, or the module that was exported
    to it. samples: for training, with classes as y. memory: a file for what was evaluated before; None keeps nothing.

    Raises TrainingError: too few samples, or the model answers otherwise than y says. RuleError: a layer of the space
    isn't the model's.
    """

    def __init__(
        self, model: nn.Module, space: Space, samples: Samples, effort: Effort | None = None, memory: Path | None = None
    ) -> None:
        self.model, self.space, self.effort = model.eval(), space, effort or Effort()
        self.parameters = parameters_of(space, find_layers(model))
        how = self.effort
        sequence = order(len(samples), how.seed, 0).tolist()
        n_held = min(how.held_out, len(samples) // 3)
        if not n_held:
            raise TrainingError(f"{samples.where}: {len(samples)} samples, expected at least 3")
        self.held, self.rest = samples.part(sequence[:n_held]), samples.part(sequence[n_held:])
        self.size = min(how.batch_size, len(self.rest))
        self.place = Place(0, 1, torch.device("cpu"), how.bf16)
        x, y = self.held.take(range(min(2, len(self.held))))
        with torch.no_grad():
            check_answers("cross-entropy", self.model(x), y, samples.classes, samples.where)
        self.memory = Memory(memory, self._identity())

    def __call__(self, mapping: Mapping) -> float:
        """Raises OutputError: what was found can't be kept."""
        what = described(self.space, mapping)
        known = self.memory.get(what)
        if known is None:
            known = self._evaluate(mapping)
            self.memory.put(what, known)
        return known

    def _evaluate(self, mapping: Mapping) -> float:
        model = copy.deepcopy(self.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrunusWarning)  # of sparsities that groups don't permit exactly
            pruner = self._pruner(model, mapping)
            if pruner is not None:
                self._retrain(model, pruner)
                pruner.finalize()
                recalibrate(model, self.rest, BATCHES, self.size, self.effort.seed, self.place)
        score = evaluate(model, self.held, "cross-entropy", EVALUATED, self.place)
        assert score.accuracy is not None
        return score.accuracy

    def _pruner(self, model: nn.Module, mapping: Mapping) -> Pruner | None:
        """With one-shot masks in force; None where all stays dense."""
        rules = rules_of(self.space, mapping, self.parameters)
        if all("skip" in rule for rule in rules):
            return None
        recipe = {"method": "one-shot", "epochs": {"sparsify": 0, "recover": 1}, "layers": rules}
        return Pruner(model, recipe, steps_per_epoch=max(self.effort.steps, 1))

    def _retrain(self, model: nn.Module, pruner: Pruner) -> None:
        how = self.effort
        optimizer = make_optimizer(how.optimizer, model)
        model.train()
        for step in range(how.steps):
            seed_step(how.seed, step, 0)
            x, y = self.rest.take(self._batch(step))
            x = augmented(x, how.augment, how.seed, step, 0, 1)
            for group in optimizer.param_groups:
                group["lr"] = how.optimizer.rate * factor(how.optimizer, step, how.steps, how.steps)
            with self.place.autocast():
                answers = model(x)
            loss = task_loss("cross-entropy", answers, y)
            if how.distil:
                with torch.no_grad(), self.place.autocast():
                    taught = self.model(x)
                loss = distilled("cross-entropy", loss, answers, taught, Distil())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pruner.step()

    def _batch(self, step: int) -> list[int]:
        """Those of a step: one after the other, and from the start again where samples are few."""
        n = len(self.rest)
        return [i % n for i in range(step * self.size, (step + 1) * self.size)]

    def _identity(self) -> str:
        """Of network, data and effort: what accuracies depend on beside the mapping."""
        hashed = hashlib.sha256()
        x, y = self.held.take(range(min(16, len(self.held))))
        for name, tensor in [*sorted(self.model.state_dict().items()), ("x", x), ("y", y)]:
            hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            hashed.update(_bytes(tensor))
        return digest([hashed.hexdigest(), len(self.held), len(self.rest), self.effort.plain()])


def rules_of(space: Space, mapping: Mapping, parameters: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The mapping as rules of a recipe, `skip` where a layer stays dense, by the names that `parameters_of` found."""
    rules = []
    for names, option in zip(parameters, space.chosen(mapping), strict=True):
        dense = option.scheme is None
        what = {"skip": True} if dense else {"scheme": option.scheme, "sparsity": option.sparsity}
        rules += [{"match": name, **what} for name in names]
    return rules


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
