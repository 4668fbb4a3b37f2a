"""A small CNN, and its training, plainly or under a Pruner."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from prunus.demo.data import Images
from prunus.training.pruner import Pruner
from prunus.training.recipe import Epochs, Recipe, Rule

BATCH = 64
EXAMPLE = torch.zeros(1, 1, 28, 28)


def make_network(seed: int = 0) -> nn.Sequential:
    """Four convolutions with BatchNorm and two linear layers, for 28x28 grey images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *_block(1, 32), nn.MaxPool2d(2),
        *_block(32, 64), *_block(64, 128), nn.MaxPool2d(2),
        *_block(128, 128), nn.Flatten(),
        nn.Linear(128 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def recipe(scheme: str, sparsify: int, recover: int, sparsity: float = 0.9) -> Recipe:
    """All layers of that network but the first and the last: those two are small and matter."""
    rules = (Rule(match="0", skip=True), Rule(match="17", skip=True))
    epochs = Epochs(sparsify=sparsify, recover=recover)
    return Recipe(
        method="gradual", epochs=epochs, layers=(*rules, Rule(match="re:.*", scheme=scheme, sparsity=sparsity))
    )


@final
@dataclass(frozen=True)
class Schedule:
    """epochs and peak learning rate of one training."""

    epochs: int
    rate: float


def steps_per_epoch(images: Images) -> int:
    """Batches of BATCH images."""
    return -(-len(images.train_y) // BATCH)


def train(
    network: nn.Sequential,
    images: Images,
    schedule: Schedule,
    pruner: Pruner | None = None,
    progress: Callable[[str], None] = lambda step: None,
    seed: int = 0,
) -> None:
    """Train in place, one cycle of the learning rate over all epochs."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=1e-3)
    x, y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    n_steps = schedule.epochs * steps_per_epoch(images)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=n_steps)
    network.train()
    for epoch in range(schedule.epochs):
        lost = 0.0
        for batch in torch.split(torch.randperm(len(x)), BATCH):
            loss = nn.functional.cross_entropy(network(_shift(x[batch])), y[batch])
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
            if pruner is not None:
                pruner.step()
            lost += float(loss.detach()) * len(batch)
        progress(f"epoch {epoch + 1} of {schedule.epochs}, loss {lost / len(x):.3f}")
    network.eval()


def _block(i: int, o: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()


def _shift(x: Tensor) -> Tensor:
    """The batch moved by up to 2 pixels each way: cheap augmentation."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return x.roll((down, right), (2, 3))
