"""Small networks and real digits (8x8, scikit-learn's) to train them on, in seconds."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from prunus.training.pruner import Pruner

BATCH = 64


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images float[n, 1, 8, 8] and classes to train with, then those to test with: every fifth."""
    bunch = load_digits()
    x = torch.from_numpy((bunch.images[:, None] / 8 - 1).astype(np.float32))
    y = torch.from_numpy(bunch.target.astype(np.int64))
    test = torch.arange(len(x)) % 5 == 0
    return x[~test], y[~test], x[test], y[test]


def cnn(seed: int = 0) -> nn.Sequential:
    """Three 3x3 convolutions, one 1x1, two fully connected layers; as many channels as make ragged blocks."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 28, 3, padding=1, bias=False), nn.BatchNorm2d(28), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(28, 32, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 48), nn.ReLU(), nn.Linear(48, 10),
    )  # fmt: skip


PRUNED = "re:^(3|7|10|15)$"  # of cnn(): all but its first and last layer


class Recurrent(nn.Module):
    """Rows of an image one after the other through a GRU or LSTM."""

    def __init__(self, kind: type[nn.RNNBase], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rnn = kind(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float[n, 10] of float[n, 1, 8, 8]."""
        return self.head(self.rnn(x.squeeze(1))[0][:, -1])  # type: ignore[no-any-return]


def steps_per_epoch() -> int:
    return len(digits()[0]) // BATCH


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)


def train(
    network: nn.Module,
    n_steps: int,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner | None = None,
    start: int = 0,
    after: Callable[[int], None] | None = None,
) -> None:
    """Steps start + 1 to n_steps; which batch a step gets depends on its number only."""
    x, y = digits()[:2]
    per_epoch = len(x) // BATCH
    network.train()
    for step in range(start, n_steps):
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        batch = order[place * BATCH : (place + 1) * BATCH]
        loss = functional.cross_entropy(network(x[batch].to(next(network.parameters()).dtype)), y[batch])
        if pruner is not None:
            loss = loss + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if pruner is not None:
            pruner.step()
        if after is not None:
            after(step + 1)


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Fraction of the test images that are right."""
    x, y = digits()[2:]
    network.eval()
    return float((network(x.to(next(network.parameters()).dtype)).argmax(1) == y).float().mean())


@functools.cache
def _trained() -> nn.Sequential:
    torch.set_num_threads(1)
    network = cnn()
    train(network, 4 * steps_per_epoch(), sgd(network))
    return network


def trained() -> nn.Sequential:
    """A copy of cnn() after four epochs: trained once per run."""
    return copy.deepcopy(_trained())
