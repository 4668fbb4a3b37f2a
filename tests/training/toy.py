"""A task and a network so small that a training takes less than a second."""

from pathlib import Path
from typing import Any

import numpy as np

NETWORK = '''
import os, signal
import torch
from torch import nn


class Fatal(nn.Module):
    """Ends the process, hard, at its n-th training batch; or makes that batch's loss infinite."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        if self.training:
            self.seen += 1
            if self.seen == int(os.environ.get("KILL_AT", 0)):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.seen == int(os.environ.get("DIVERGE_AT", 0)):
                return x * float("inf")
        return x


def make(width=8, norm=True, drop=0.0):
    return nn.Sequential(
        Fatal(),
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(drop),
        nn.Conv2d(width, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 4),
    )


def number():
    return 3


def fails():
    return 1 // 0


class Pairs:
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.full((1, 8, 8), float(i % 4)), i % 4


def pairs():
    return Pairs(64)


def lonely():
    return [torch.zeros(1, 8, 8)] * 8
'''


def samples(n: int, seed: int) -> dict[str, Any]:
    """float32[n, 1, 8, 8] and int64[n]: noisy copies of four pictures."""
    pictures = np.random.default_rng(7).standard_normal((4, 1, 8, 8))
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, n)
    return {"x": (pictures[y] + 1.5 * generator.standard_normal((n, 1, 8, 8))).astype(np.float32), "y": y}


def write_toy(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write network and data there; the recipe of them, with changes at its top."""
    (folder / "net.py").write_text(NETWORK)
    np.savez(folder / "train.npz", **samples(200, 0))
    np.savez(folder / "validation.npz", **samples(101, 1))
    return {
        "model": {"build": f"{folder}/net.py:make", "input": [1, 8, 8]},
        "data": {"train": f"{folder}/train.npz", "validation": f"{folder}/validation.npz", "batch_size": 32},
        "optimizer": {"rate": 0.01},
        "dense": {"epochs": 1},
        "epochs": {"sparsify": 1, "recover": 1},
        "layers": [{"match": "5", "scheme": "unstructured", "sparsity": 0.75}],
        **changes,
    }
