"""Small networks on scikit-learn's digits, trained in a moment, and fingerprints without any training."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from prunus.fingerprint.domain import Domain
from prunus.fingerprint.file import Fingerprint, NullModel
from prunus.fingerprint.method import Method
from prunus.fingerprint.secret import starts_of, targets_of
from prunus.training.export import export_onnx

SHAPE = (1, 8, 8)
DOMAIN = Domain(SHAPE, (0.0,), (1.0,))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """float[n, 1, 8, 8] from 0 to 1, and classes."""
    found = load_digits()
    x = torch.from_numpy((found.images[:, None] / 16).astype(np.float32))
    return x, torch.from_numpy(found.target.astype(np.int64))


def network(width: int = 16, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, kernel, padding=kernel // 2), nn.ReLU(), nn.Conv2d(width, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def fit(model: nn.Module, epochs: int, seed: int, rate: float = 3e-3) -> nn.Module:
    x, y = digits()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def trained(seed: int, width: int = 16, kernel: int = 3, epochs: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return fit(network(width, kernel), epochs, seed)


def write(model: nn.Module, path: Path) -> Path:
    export_onnx(model, path, torch.zeros(2, *SHAPE))
    return path


def made_up(n: int = 20, null: tuple[int, ...] = (2, 3), origin: str = "noise") -> Fingerprint:
    """A fingerprint of no network: consistent in all that a file can be checked for."""
    secret, first = bytes(range(32)), [i % 10 for i in range(n)]
    starts = starts_of(secret, n, SHAPE)
    return Fingerprint(
        "model.onnx", "ab" * 32, DOMAIN, 10, Method(eps=0.1), secret, bytes(32), "2026-01-01T00:00:00+00:00", 1e-3,
        tuple(first), np.array(targets_of(secret, first, 10), np.int64), starts.copy(), n,
        tuple(NullModel(f"null{i}.onnx", f"{i:064x}", k) for i, k in enumerate(null)), origin,
        starts if origin == "images" else None,
    )  # fmt: skip


def answers(fingerprint: Fingerprint, matches: int) -> NDArray[np.int64]:
    """Labels of which so many are the target."""
    labels = fingerprint.targets.copy()
    labels[matches:] = (labels[matches:] + 1) % 10
    return labels
