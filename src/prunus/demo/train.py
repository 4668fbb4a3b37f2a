"""A small CNN, its training, and its pruning with a masked retraining."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.demo.data import Images
from prunus.sparsity.project import project
from prunus.sparsity.scheme import Scheme

Masks = dict[str, NDArray[np.bool_]]
BATCH = 64


def make_network(seed: int = 0) -> nn.Sequential:
    """Four convolutions with BatchNorm and two linear layers, for 28x28 grey images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *_block(1, 32), nn.MaxPool2d(2),
        *_block(32, 64), *_block(64, 128), nn.MaxPool2d(2),
        *_block(128, 128), nn.Flatten(),
        nn.Linear(128 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def prunable(network: nn.Sequential) -> dict[str, Tensor]:
    """Weights of all layers but the first and the last, by name: those two are small and matter."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return {f"{name}.weight": module.weight for name, module in layers[1:-1]}


def make_masks(network: nn.Sequential, scheme: Scheme, sparsity: float) -> Masks:
    """Which weights stay, by magnitude in the groups of `scheme`."""
    return {name: project(weight.detach().numpy(), scheme, sparsity) for name, weight in prunable(network).items()}


def apply_masks(network: nn.Sequential, masks: Masks) -> None:
    """Set to zero, exactly, what the masks drop."""
    with torch.no_grad():
        for name, weight in prunable(network).items():
            weight.mul_(torch.from_numpy(masks[name]))


@final
@dataclass(frozen=True)
class Schedule:
    """epochs and peak learning rate of one training; `sparsities` per epoch, () for dense."""

    epochs: int
    rate: float
    sparsities: Sequence[float] = ()


def train(
    network: nn.Sequential,
    images: Images,
    schedule: Schedule,
    scheme: Scheme | None = None,
    progress: Callable[[str], None] = lambda step: None,
    seed: int = 0,
) -> Masks:
    """Train in place, and return the masks in force at the end ({} for dense).

    With a scheme, masks are made anew where an epoch's sparsity differs from the last one's, and
    applied after every step: momentum and weight decay would move a pruned weight off zero.
    """
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=1e-3)
    x, y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    n_steps = schedule.epochs * -(-len(x) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=n_steps)
    masks: Masks = {}
    network.train()
    for epoch in range(schedule.epochs):
        if scheme is not None and (epoch == 0 or schedule.sparsities[epoch] != schedule.sparsities[epoch - 1]):
            masks = make_masks(network, scheme, schedule.sparsities[epoch])
            apply_masks(network, masks)
        lost = 0.0
        for batch in torch.split(torch.randperm(len(x)), BATCH):
            loss = nn.functional.cross_entropy(network(_shift(x[batch])), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
            if masks:
                apply_masks(network, masks)
            lost += float(loss.detach()) * len(batch)
        progress(f"epoch {epoch + 1} of {schedule.epochs}, loss {lost / len(x):.3f}")
    network.eval()
    return masks


def export(network: nn.Sequential, path: str) -> None:
    """Write the network as ONNX with a free batch; input "x", output "logits"."""
    x = torch.zeros(1, 1, 28, 28)
    torch.onnx.export(
        network.eval(),
        (x,),
        path,
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
    )


def _block(i: int, o: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()


def _shift(x: Tensor) -> Tensor:
    """The batch moved by up to 2 pixels each way: cheap augmentation."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return x.roll((down, right), (2, 3))
