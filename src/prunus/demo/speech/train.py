"""A GRU that hears a digit frame by frame, and its training, plainly or under a Pruner."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.demo.speech.data import Part
from prunus.training.losses import distilled
from prunus.training.pruner import Pruner
from prunus.training.recipe import Distil

BATCH = 32
LAYERS, UNITS, COEFFICIENTS = 2, 128, 13


@final
class Listener(nn.Module):
    """What is heard so far, after each frame: the recording's digit is the largest sum of answers over its frames."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.gru = nn.GRU(COEFFICIENTS, UNITS, LAYERS)
        self.head = nn.Linear(UNITS, 10)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """float[t, n, 10], and the states that the next frames go on from; x: float[t, n, 13], h: float[2, n, 128]."""
        y, last = self.gru(x, h)
        return self.head(y), last


def silence(n: int = 1) -> Tensor:
    """The states before the first frame."""
    return torch.zeros(LAYERS, n, UNITS)


@final
@dataclass(frozen=True)
class Schedule:
    """epochs and peak learning rate of one training: one cycle over all epochs. noise: of the frames, normal; fade:
    of the frames that are left out, at most."""

    epochs: int
    rate: float
    noise: float = 0.3
    weight_decay: float = 1e-2


def steps_per_epoch(part: Part) -> int:
    """Batches of BATCH recordings."""
    return -(-len(part.labels) // BATCH)


def train(
    network: Listener,
    part: Part,
    schedule: Schedule,
    pruner: Pruner | None = None,
    teacher: Listener | None = None,
    progress: Callable[[str], None] = lambda step: None,
    seed: int = 0,
) -> None:
    """Train in place. teacher: half of the loss is to answer as it does. Recordings of like lengths make a batch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
    n_steps = schedule.epochs * steps_per_epoch(part)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=n_steps)
    network.train()
    for epoch in range(schedule.epochs):
        lost = 0.0
        for chosen in batches(part, rng):
            x, valid = padded([part.frames[i] for i in chosen])
            y = torch.from_numpy(part.labels[chosen])
            x = x + schedule.noise * torch.randn(x.shape)
            answers = heard(network(x, silence(len(chosen)))[0], valid)
            loss = functional.cross_entropy(answers, y)
            if teacher is not None:
                with torch.no_grad():
                    taught = heard(teacher(x, silence(len(chosen)))[0], valid)
                loss = distilled("cross-entropy", loss, answers, taught, Distil())
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rates.step()
            if pruner is not None:
                pruner.step()
            lost += float(loss.detach()) * len(chosen)
        progress(f"epoch {epoch + 1} of {schedule.epochs}, loss {lost / len(part.labels):.3f}")
    network.eval()


def batches(part: Part, rng: np.random.Generator) -> list[np.ndarray]:
    """Each recording once, in batches of about the same number of frames, in a random order."""
    lengths = np.array([len(frames) for frames in part.frames])
    order = np.argsort(lengths + rng.uniform(0, 4, len(lengths)))
    split = np.split(order, range(BATCH, len(order), BATCH))
    return [split[i] for i in rng.permutation(len(split))]


def padded(recordings: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """float[t, n, 13] with zeros behind each recording, and float[t, n, 1], 1 where it has frames."""
    longest = max(len(frames) for frames in recordings)
    x, valid = torch.zeros(longest, len(recordings), COEFFICIENTS), torch.zeros(longest, len(recordings), 1)
    for i, frames in enumerate(recordings):
        x[: len(frames), i] = torch.from_numpy(frames)
        valid[: len(frames), i] = 1
    return x, valid


def heard(answers: Tensor, valid: Tensor) -> Tensor:
    """float[n, 10]: the mean answer over the frames of each recording."""
    return (answers * valid).sum(0) / valid.sum(0)


@torch.no_grad()
def accuracy(network: Listener, part: Part) -> float:
    """The share of recordings that are heard right."""
    network.eval()
    x, valid = padded(list(part.frames))
    found = heard(network(x, silence(len(part.labels)))[0], valid).argmax(1)
    return float((found.numpy() == part.labels).mean())
