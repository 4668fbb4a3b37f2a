"""A family of small networks on Fashion-MNIST: owners, what is made of them, and networks that have nothing of them.

    python -m bench.family [--only TEXT ...] [--list]     # trains what out/fingerprint lacks

Each is an ONNX file (or an artefact, int8 and bf16) in out/fingerprint, named as in `members`. Owners, null models and
those that are reported on differ in seed and architecture; nothing is chosen by looking at a result.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

import prunus
from bench import fashion, store
from prunus.demo.data import load_images
from prunus.pruning.torch_module import to_module
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner

KEPT = store.ROOT / "out" / "fingerprint"
EPOCHS, RATE = 2, 0.1
RETRAIN_RATE = 0.05
BATCH = 128


def _conv(i: int, o: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU()]


def plain() -> nn.Sequential:
    """Three strided convolutions and one linear layer: 0.6 M multiply-adds."""
    return nn.Sequential(
        *_conv(1, 16, 3, 2), *_conv(16, 32, 3, 2), *_conv(32, 64, 3, 2), nn.Flatten(), nn.Linear(1024, 10)
    )


def deep() -> nn.Sequential:
    """Five convolutions: 0.6 M multiply-adds."""
    return nn.Sequential(
        *_conv(1, 12, 3, 2), *_conv(12, 24, 3, 2), *_conv(24, 24), *_conv(24, 48, 3, 2), *_conv(48, 48), nn.Flatten(),
        nn.Linear(768, 10),
    )  # fmt: skip


def residual() -> nn.Sequential:
    """Three residual blocks: 0.5 M multiply-adds."""
    blocks = [fashion.Residual(12, 20, 2), fashion.Residual(20, 32, 2), fashion.Residual(32, 64, 2)]
    return nn.Sequential(*_conv(1, 12, 3, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def wide() -> nn.Sequential:
    """Two convolutions of 5x5 and two linear layers: 0.6 M multiply-adds."""
    return nn.Sequential(
        *_conv(1, 12, 5, 2), *_conv(12, 32, 5, 2), nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)
    )


ARCHITECTURES: dict[str, Callable[[], nn.Sequential]] = {
    "plain": plain, "deep": deep, "residual": residual, "wide": wide,
}  # fmt: skip
OWNERS = {
    "owner-0": ("plain", 0),
    "owner-1": ("deep", 0),
    "owner-2": ("residual", 0),
    "trial": ("plain", 90),
    "trial-deep": ("deep", 91),
}
NULL_SEEDS, TRIAL_SEEDS, REPORTED_SEEDS = (10, 11), (30,), (20, 21, 22, 23)
TRIALS = ("trial", "trial-deep")  # owners to choose constants by
TRIAL_CHANGES = ("bcr-70", "bcr-90", "tuned", "tuned-long", "unstructured-one-shot-50", "int8")  # of TRIALS
COMPRESSED = ("bcr-80", "unstructured-one-shot-50", "int8", "tuned")  # of an independent network


@dataclass(frozen=True)
class Member:
    """A network of the family. role: owner, descendant, null, trial (to choose constants by) or independent."""

    name: str
    role: str
    make: Callable[[], None]
    of: str = ""  # the owner that a descendant comes from
    counted: bool = False  # among those that have to be recognised
    suffix: str = ".onnx"

    @property
    def path(self) -> Path:
        """Its file."""
        return KEPT / f"{self.name}{self.suffix}"


@dataclass(frozen=True)
class Change:
    """What is done to an owner's network; `counted` as Member's."""

    name: str
    make: Callable[[Path, Path], None]
    counted: bool = False
    suffix: str = ".onnx"


@cache
def data() -> fashion.Data:
    """All images."""
    images = fashion.folder()
    if images is None:
        raise SystemExit("no Fashion-MNIST: apt install dataset-fashion-mnist, or set PRUNUS_DATA")
    return fashion.load(images)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """MNIST's 4,000 training digits: other data."""
    found = load_images("mnist")
    return torch.from_numpy(found.train_x), torch.from_numpy(found.train_y)


def fit(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int,
    rate: float,
    seed: int,
    pruner: Pruner | None = None,
    teacher: nn.Module | None = None,
) -> None:
    """Train in place by SGD, one cycle of the rate; with a teacher, to answer as it does."""
    generator = torch.Generator().manual_seed(seed)
    network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    n_batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * n_batches, pct_start=0.2)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator)[: n_batches * BATCH].split(BATCH):
            images = x[batch]
            if float(torch.rand((), generator=generator)) < 0.5:
                images = images.flip(3)
            logits = network(images)
            if teacher is None:
                loss = functional.cross_entropy(logits, y[batch])
            else:
                with torch.no_grad():
                    wanted = functional.softmax(teacher(images) / 4, 1)
                loss = 16 * functional.kl_div(functional.log_softmax(logits / 4, 1), wanted, reduction="batchmean")
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if pruner is not None:
                pruner.step()
    network.eval()


def _write(network: nn.Module, path: Path) -> None:
    export_onnx(network, path, data().test_x[:2])


def _train(path: Path, architecture: str, seed: int, other_data: bool = False) -> None:
    torch.manual_seed(seed)
    network = ARCHITECTURES[architecture]()
    x, y = digits() if other_data else (data().x, data().y)
    fit(network, x, y, 20 if other_data else EPOCHS, RATE, seed)
    torch.save(network.state_dict(), path.with_suffix(".pt"))
    _write(network, path)


def _torch(path: Path) -> nn.Module:
    """The trained network with its BatchNorm, as `_train` left it."""
    name = path.stem
    architecture = OWNERS[name][0] if name in OWNERS else name.split("-")[1]
    network = ARCHITECTURES[architecture]()
    network.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    return network


def _retrained(source: Path, path: Path, *, scheme: str, sparsity: float) -> None:
    """Pruned gradually in one epoch, all layers but the first and the last, and trained for one more."""
    network = _torch(source)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    rule: dict[str, Any] = {"match": "re:.*", "scheme": scheme}
    recipe: dict[str, Any] = {"method": "gradual", "epochs": {"sparsify": 1, "recover": 1}}
    if scheme == "filter":
        recipe["remove"] = {"macs": 1 - sparsity}
    else:
        rule["sparsity"] = sparsity
    recipe["layers"] = [*({"match": name, "skip": True} for name in (layers[0], layers[-1])), rule]
    d = data()
    pruner = Pruner(network, recipe, d.test_x[:2], len(d.x) // BATCH)
    fit(network, d.x, d.y, 2, RETRAIN_RATE, 7, pruner)
    pruner.finalize()
    if "remove" in recipe:
        pruner.shrink()
    pruner.export(path)


def _one_shot(source: Path, path: Path, *, scheme: str, sparsity: float) -> None:
    path.write_bytes(prunus.prune_onnx(str(source), scheme=scheme, sparsity=sparsity).SerializeToString())


def _compiled(source: Path, path: Path, *, precision: str) -> None:
    feeds = [{"x": batch.numpy()} for batch in data().x[:512].split(64)]
    calibration = feeds if precision == "int8" else None
    prunus.compile(source, precision=precision, calibration=calibration, threads=1, tune="off").save(path)


def _four_bits(source: Path, path: Path) -> None:
    """Weights of 4 bits, one scale per filter."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            a = numpy_helper.to_array(tensor)
            scale = np.abs(a).max(axis=tuple(range(1, a.ndim)), keepdims=True) / 7
            tensor.CopyFrom(numpy_helper.from_array((np.round(a / scale) * scale).astype(np.float32), tensor.name))
    onnx.save(model, path)


def _tuned(source: Path, path: Path, *, epochs: int, rate: float, last: bool = False) -> None:
    network = _torch(source)
    if last:
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        for parameter in list(network.parameters())[-2:]:
            parameter.requires_grad_(True)
    fit(network, data().x, data().y, epochs, rate, 8)
    _write(network, path)


def _noisy(source: Path, path: Path) -> None:
    """Weights with normal noise of a tenth of their deviation, layer by layer."""
    network = _torch(source)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    _write(network.eval(), path)


def _distilled(source: Path, path: Path, *, seed: int) -> None:
    """A fresh network of the same architecture, trained on the owner's answers alone."""
    teacher = to_module(str(source)).eval()
    torch.manual_seed(seed)
    network = ARCHITECTURES[OWNERS[source.stem][0]]()
    fit(network, data().x, data().y, EPOCHS, RATE, seed, teacher=teacher)
    _write(network, path)


CHANGES = (
    *(Change(f"bcr-{n}", partial(_retrained, scheme="bcr:8x64", sparsity=n / 100), True) for n in (50, 70, 80, 90)),
    Change("int8", partial(_compiled, precision="int8"), True, ".prunus"),
    Change("tuned-last", partial(_tuned, epochs=1, rate=0.05, last=True), True),
    Change("tuned", partial(_tuned, epochs=1, rate=0.01), True),
    Change("tuned-long", partial(_tuned, epochs=2, rate=0.05), True),
    *(
        Change(f"unstructured-{n}", partial(_retrained, scheme="unstructured", sparsity=n / 100)) for n in (70, 90)
    ),
    *(Change(f"filter-{n}", partial(_retrained, scheme="filter", sparsity=n / 100)) for n in (30, 50)),
    *(
        Change(f"unstructured-one-shot-{n}", partial(_one_shot, scheme="unstructured", sparsity=n / 100))
        for n in (30, 50, 70)
    ),
    Change("bcr-one-shot-30", partial(_one_shot, scheme="bcr:8x64", sparsity=0.3)),
    Change("filter-one-shot-30", partial(_one_shot, scheme="filter", sparsity=0.3)),
    Change("bf16", partial(_compiled, precision="bf16"), False, ".prunus"),
    Change("4-bit", _four_bits),
    Change("noise", _noisy),
    Change("distilled", partial(_distilled, seed=40)),
)  # fmt: skip


def members() -> list[Member]:
    """The family, those first that others are made of."""
    found = [Member(name, "owner", partial(_train, KEPT / f"{name}.onnx", *spec)) for name, spec in OWNERS.items()]
    for role, seeds in (("null", NULL_SEEDS), ("trial", TRIAL_SEEDS), ("independent", REPORTED_SEEDS)):
        for seed in seeds:
            for architecture in ARCHITECTURES:
                name = f"{role}-{architecture}-{seed}"
                found.append(Member(name, role, partial(_train, KEPT / f"{name}.onnx", architecture, seed)))
    for seed in REPORTED_SEEDS[:2]:
        name = f"independent-plain-digits-{seed}"
        found.append(Member(name, "independent", partial(_train, KEPT / f"{name}.onnx", "plain", seed, True)))
    changes = {change.name: change for change in CHANGES}
    for architecture in ("plain", "deep", "residual"):
        source = KEPT / f"independent-{architecture}-{REPORTED_SEEDS[0]}.onnx"
        for change in (changes[name] for name in COMPRESSED):
            path = KEPT / f"{source.stem}-{change.name}{change.suffix}"
            make = partial(change.make, source, path)
            found.append(Member(path.stem, "independent", make, suffix=change.suffix))
    for owner in OWNERS:
        for change in CHANGES:
            if owner in TRIALS and change.name not in TRIAL_CHANGES:
                continue
            path = KEPT / f"{owner}-{change.name}{change.suffix}"
            make = partial(change.make, KEPT / f"{owner}.onnx", path)
            found.append(Member(path.stem, "descendant", make, owner, change.counted, change.suffix))
    return found


def main() -> int:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="networks whose name holds one of these")
    parser.add_argument("--list", action="store_true", help="print the names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    for member in members():
        if not any(text in member.name for text in options.only):
            continue
        if options.list:
            print(f"{member.role:12} {member.name}")
        elif not member.path.exists():
            start = time.perf_counter()
            member.make()
            print(f"{member.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
