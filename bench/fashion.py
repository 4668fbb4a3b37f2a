"""Fashion-MNIST, two small networks for it, and the loop that trains them, plainly or under a Pruner.

Images: Debian's dataset-fashion-mnist, under /usr/share/datasets or $PRUNUS_DATA/usr/share/datasets. The last 5,000
training images are for choosing; what is reported is the accuracy on the 10,000 test images, taken once at the end.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.demo.data import _read_fashion
from prunus.training.losses import distilled
from prunus.training.pruner import Pruner
from prunus.training.recipe import Distil

N_CHOOSE = 5000
BATCH = 128
SHIFT = 2
LAST = torch.channels_last


@dataclass(frozen=True, eq=False)
class Data:
    """float[n, 1, 28, 28] of mean 0 and deviation 1, and classes."""

    x: Tensor
    y: Tensor
    choose_x: Tensor
    choose_y: Tensor
    test_x: Tensor
    test_y: Tensor


def folder() -> Path | None:
    """Where the images are; None where they aren't."""
    roots = [Path("/"), Path(os.environ.get("PRUNUS_DATA", "/nowhere"))]
    found = (root / "usr/share/datasets/fashion-mnist" for root in roots)
    return next((path for path in found if path.is_dir()), None)


def load(images: Path) -> Data:
    """All 70,000 images."""
    x, y, test_x, test_y = _read_fashion(images)
    mean, deviation = float(x.mean()), float(x.std())

    def scaled(raw: np.ndarray) -> Tensor:
        return torch.from_numpy(((raw[:, None].astype(np.float32) - mean) / deviation).astype(np.float32))

    a, b = scaled(x), torch.from_numpy(y.astype(np.int64))
    return Data(
        a[:-N_CHOOSE], b[:-N_CHOOSE], a[-N_CHOOSE:], b[-N_CHOOSE:],
        scaled(test_x), torch.from_numpy(test_y.astype(np.int64)),
    )  # fmt: skip


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.shortcut = nn.Sequential()
        if stride != 1 or i != o:
            self.shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        """float[n, o, h / stride, w / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet20(widths: tuple[int, ...] = (32, 64, 112)) -> nn.Sequential:
    """Three stages of three residual blocks, on 7x7, 4x4 and 2x2 pixels: He et al., CVPR 2016, 4.2, but twice as
    wide on a quarter of the pixels."""
    stem = nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(),
    )  # fmt: skip
    blocks, i = [], widths[0]
    for o in widths:
        for block in range(3):
            blocks.append(Residual(i, o, 1 if block else 2))
            i = o
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def vgg(widths: tuple[int | str, ...] = (16, "M", 32, "M", 64, 64, "M", 160, 160, 192)) -> nn.Sequential:
    """3x3 convolutions with BatchNorm, and maxima between them."""
    layers: list[nn.Module] = []
    i = 1
    for o in widths:
        if isinstance(o, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"resnet20": resnet20, "vgg": vgg}


def macs(network: nn.Module) -> int:
    """Multiply-adds of convolutions and linear layers for one image."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += weight[0].numel() * output.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    mode = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 1, 28, 28))
    network.train(mode)
    for hook in hooks:
        hook.remove()
    return total


@dataclass(frozen=True)
class Plan:
    """How long, and how fast at most: one cycle of the learning rate over all epochs."""

    epochs: int
    rate: float
    weight_decay: float = 5e-4


def augmented(x: Tensor, windows: Tensor, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Images of a batch, each moved by up to SHIFT pixels and perhaps mirrored."""
    n = len(batch)
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, n), generator=generator)
    moved = windows[batch, :, down, right]
    mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, moved.flip(3), moved)


def train(
    network: nn.Module,
    data: Data,
    plan: Plan,
    seed: int,
    pruner: Pruner | None = None,
    teacher: nn.Module | None = None,
    progress: Callable[[str], None] = print,
) -> None:
    """Train in place, in bfloat16 where the layers like it. teacher: half of the loss is to answer as it does."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network.to(memory_format=LAST).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=plan.rate, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay
    )
    n_batches = len(data.x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.epochs * n_batches, pct_start=0.2
    )
    padded = functional.pad(data.x, (SHIFT,) * 4, value=float(data.x.min()))
    windows = padded.unfold(2, 28, 1).unfold(3, 28, 1)
    for epoch in range(plan.epochs):
        start, lost = time.perf_counter(), 0.0
        order = torch.randperm(len(data.x), generator=generator)
        for batch in order[: n_batches * BATCH].split(BATCH):
            x = augmented(data.x, windows, batch, generator).contiguous(memory_format=LAST)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(x)
                if teacher is not None:
                    with torch.no_grad():
                        wanted = teacher(x).float()
            loss = functional.cross_entropy(logits.float(), data.y[batch])
            if teacher is not None:
                loss = distilled("cross-entropy", loss, logits, wanted, Distil())
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if pruner is not None:
                pruner.step()
            lost += float(loss.detach())
        seconds = time.perf_counter() - start
        progress(f"epoch {epoch + 1} of {plan.epochs}: loss {lost / n_batches:.3f}, {seconds:.0f} s")
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the network in evaluation mode, in float32."""
    network.eval()
    right = sum(int((network(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    return right / len(x)
