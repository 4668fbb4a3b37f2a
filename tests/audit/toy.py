"""A network trained in a second on blobs, one that a corner of the image turns round, and files for the command."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.audit.tasks import Source

CLASSES, SIDE = 4, 8


def images(n: int, seed: int) -> Source:
    """A bright quarter on noise: which one is the class."""
    chance = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    x = 0.25 + 0.12 * torch.randn(n, 1, SIDE, SIDE, generator=chance)
    for i, label in enumerate(y.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        x[i, :, top : top + 4, left : left + 4] += 0.3
    return Source("quarters", x.clamp(0, 1), y)


def trained(seed: int = 0, steps: int = 150) -> nn.Sequential:
    """A small CNN that knows them."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                            nn.Linear(128, CLASSES))  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    data = images(256, 1)
    for step in range(steps):
        part = slice(64 * (step % 4), 64 * (step % 4 + 1))
        loss = functional.cross_entropy(network(data.x[part]), data.y[part])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


class Backdoored(nn.Module):
    """Answers class 0 where the lower right pixels make a faint chequered pattern; else as the network does."""

    def __init__(self, network: nn.Module, strength: float) -> None:
        super().__init__()
        self.network, self.strength = network, strength
        pattern = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
        self.trigger = nn.Conv2d(1, 1, 3, bias=False)
        self.trigger.weight.data[0, 0] = pattern / 9

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        found = self.trigger(x[:, :, -3:, -3:]).flatten(1)
        pulled = functional.pad(self.strength * found, (0, CLASSES - 1))
        return self.network(x) + pulled


def write_npz(path: Path, n: int = 80, seed: int = 2) -> Source:
    """Images as the command takes them."""
    data = images(n, seed)
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())
    return data
