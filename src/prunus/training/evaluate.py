"""How good a network is on validation samples, on one process or many; and BatchNorm's statistics made anew."""

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prunus.training import shards
from prunus.training.batches import order, shares
from prunus.training.data import Samples
from prunus.training.losses import Kind, task_loss

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@final
@dataclass(frozen=True)
class Score:
    """Mean loss, and for classes the fraction of right answers among `classes`."""

    loss: float
    accuracy: float | None = None
    classes: int | None = None

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}" if self.accuracy is None else f"{self.accuracy:.2%}"

    @property
    def chance(self) -> bool:
        """Is it no better than guessing? Near 1 right answer in `classes`, or not far from that and the loss
        of even odds."""
        if self.accuracy is None or self.classes is None or self.classes < 2:
            return False
        guessing, even = 1 / self.classes, math.log(self.classes)
        if self.accuracy <= min(1.5 * guessing, guessing + 0.1):
            return True
        return abs(self.loss / even - 1) < 0.02 and self.accuracy <= min(3 * guessing, guessing + 0.2)


@final
@dataclass(frozen=True)
class Place:
    """Where a training runs: which of how many processes, on what, how precisely."""

    rank: int
    world: int
    device: torch.device
    bf16: bool = False

    def autocast(self) -> torch.autocast:
        """The precision of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def mean(self, value: float) -> float:
        """Over all processes; each has to ask."""
        return float(self.total(torch.tensor([value]))[0]) / self.world

    def total(self, values: Tensor) -> Tensor:
        """Sums over all processes, float64; each has to ask."""
        values = values.to(self.device, torch.float64)
        if shards.active():
            dist.all_reduce(values)
        return values


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, kind: Kind, size: int, place: Place) -> Score:
    """Of all samples, in evaluation mode, `size` at a time over all processes; these use the buffers of rank 0."""
    same_buffers(model)
    training = model.training
    model.eval()
    sums, classes = torch.zeros(3, dtype=torch.float64), None
    for indices, counted in shares(len(samples), size, place.rank, place.world):
        x, y = (tensor.to(place.device) for tensor in samples.take(indices))
        with place.autocast():
            answers = model(x)
        if not counted:
            continue
        n = y.numel()
        right = 0.0
        if kind == "cross-entropy":
            classes = int(answers.shape[1])
            right = float((answers.argmax(1) == y).sum())
        sums += torch.tensor([float(task_loss(kind, answers, y)) * n, right, n], dtype=torch.float64)
    model.train(training)
    loss, right, n = place.total(sums).tolist()
    return Score(loss / n) if kind == "mse" else Score(loss / n, right / n, classes)


@torch.no_grad()
def recalibrate(model: nn.Module, samples: Samples, n_batches: int, size: int, seed: int, place: Place) -> None:
    """Replace running means and variances of all BatchNorms by those over some batches of training samples.

    All processes see the same batches. Source: Li et al., "EagleEye", ECCV 2020, arXiv:2007.02491, section 3.3.
    """
    norms = [module for module in model.modules() if isinstance(module, NORMS) and module.track_running_stats]
    if not norms or not n_batches:
        return
    momenta, training = [norm.momentum for norm in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    sequence = order(len(samples), seed, 0)
    for batch in torch.split(sequence, size)[:n_batches]:
        if len(batch) == size:
            with place.autocast():
                model(samples.take(batch.tolist())[0].to(place.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


def same_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of rank 0."""
    if shards.active():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
