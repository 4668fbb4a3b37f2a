"""Tasks other than classifying: objects found one by one on a canvas, and images made of their outlines.

Both are composed of Fashion-MNIST; networks, losses and measures are here, and Prunus knows none of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CELLS, SIDE = 2, 48  # a canvas of SIDE x SIDE pixels, with an object at most about each of CELLS x CELLS places
CLASSES = 10


@dataclass(frozen=True, eq=False)
class Pairs:
    """x: float[n, 1, h, w]. y: what is to be found: see `canvases` and `outlines`."""

    x: Tensor
    y: Tensor


def canvases(images: Tensor, labels: Tensor, n: int, seed: int) -> Pairs:
    """Canvases with up to four objects that may overlap; y: float[n, 1 + h w / 4, CELLS^2]: the class of each place,
    CLASSES where it is empty, and behind it its object's mask at half the resolution.

    images: float[n, 1, 28, 28] from 0 to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    x, half = torch.zeros(n, 1, SIDE, SIDE), SIDE // 2
    classes = torch.full((n, CELLS**2), CLASSES)
    masks = torch.zeros(n, CELLS**2, half, half)
    slack = SIDE - 28
    for place in range(CELLS**2):
        row, column = divmod(place, CELLS)
        down, right = (torch.randint(0, slack // 2 - 1, (2, n), generator=generator)).tolist()
        chosen = torch.randint(0, len(images), (n,), generator=generator)
        there = (torch.rand(n, generator=generator) < 0.7).tolist()
        for i in range(n):
            if not there[i]:
                continue
            top, left = row * slack // 2 + down[i], column * slack // 2 + right[i]
            item = images[chosen[i], 0]
            own = torch.zeros(SIDE, SIDE)
            own[top : top + 28, left : left + 28] = item
            covers = own > 0.1
            x[i, 0][covers] = own[covers]  # the last one is in front
            small = covers.reshape(half, 2, half, 2).any(3).any(1)
            masks[i, :place] *= ~small
            masks[i, place] = small.float()
            classes[i, place] = labels[chosen[i]]
    y = torch.cat([classes[:, None].float(), masks.flatten(2).transpose(1, 2)], 1)
    return Pairs((x - 0.2) / 0.35, y)


class Finder(nn.Module):
    """Classes float[n, CLASSES + 1, CELLS, CELLS] and a mask's logits for each place, float[n, CELLS^2, h / 2, w / 2].

    Source of the masks by places: Wang et al., "SOLO", ECCV 2020, arXiv:1912.04488.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.stem, self.down = _block(1, a, 2), nn.Sequential(_block(a, b, 2), _block(b, b))
        self.deep = nn.Sequential(_block(b, c, 2), _block(c, c), _block(c, c))
        self.up1, self.up2 = _block(c + b, b), _block(b + a, b)
        self.masks = nn.Sequential(_block(b, b), nn.Conv2d(b, CELLS**2, 1))
        self.classes = nn.Sequential(_block(c, c), nn.AdaptiveAvgPool2d(CELLS), nn.Conv2d(c, CLASSES + 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of float[n, 1, h, w]."""
        fine = self.stem(x)
        middle = self.down(fine)
        deep = self.deep(middle)
        y = self.up1(torch.cat([functional.interpolate(deep, scale_factor=2.0), middle], 1))
        y = self.up2(torch.cat([functional.interpolate(y, scale_factor=2.0), fine], 1))
        return self.classes(deep), self.masks(y)


def finding_loss(answers: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    """Cross-entropy of classes, and of masks where there is an object."""
    classes, masks = answers
    wanted = y[:, 0].long()
    there = (wanted != CLASSES).float()
    per_mask = functional.binary_cross_entropy_with_logits(
        masks.flatten(2).float(), y[:, 1:].transpose(1, 2), reduction="none"
    ).mean(2)
    loss = functional.cross_entropy(classes.flatten(2).float(), wanted)
    return loss + 4 * (per_mask * there).sum() / there.sum().clamp(min=1)


@torch.no_grad()
def finding_score(network: nn.Module, data: Pairs) -> dict[str, float]:
    """quality: mean intersection over union of the objects there are, 0 for one whose class is wrong."""
    total, n = 0.0, 0
    for x, y in zip(data.x.split(250), data.y.split(250), strict=True):
        classes, masks = network(x)
        wanted, right = y[:, 0].long(), classes.flatten(2).argmax(1)
        found, mask = masks.flatten(2) > 0, y[:, 1:].transpose(1, 2) > 0
        union = (found | mask).sum(2)
        iou = (found & mask).sum(2) / union.clamp(min=1)
        there = (wanted != CLASSES) & mask.any(2)
        total += float((iou * (right == wanted))[there].sum())
        n += int(there.sum())
    return {"quality": total / n}


def outlines(images: Tensor) -> Pairs:
    """Of images from 0 to 1: x their outlines, of 0 and 1, y the images themselves."""
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    slopes = functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    return Pairs((slopes.norm(dim=1, keepdim=True) > 1.0).float(), images)


class Painter(nn.Module):
    """An image of its outline: convolutions of stride 2, residual blocks, and up again."""

    def __init__(self, width: int = 20, blocks: int = 3) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 3 * width
        self.down = nn.Sequential(_block(1, a), _block(a, b, 2), _block(b, c, 2))
        self.body = nn.ModuleList(_Residual(c) for _ in range(blocks))
        self.up1, self.up2, self.last = _block(c, b), _block(b, a), nn.Conv2d(a, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float[n, 1, h, w] from 0 to 1, where it is sure."""
        x = self.down(x)
        for block in self.body:
            x = block(x)
        x = self.up1(functional.interpolate(x, scale_factor=2.0))
        y: Tensor = self.last(self.up2(functional.interpolate(x, scale_factor=2.0)))
        return y


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _block(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


def painting_loss(answers: Tensor, y: Tensor) -> Tensor:
    """Mean absolute and squared error."""
    return functional.l1_loss(answers.float(), y) + functional.mse_loss(answers.float(), y)


@torch.no_grad()
def painting_score(network: nn.Module, data: Pairs) -> dict[str, float]:
    """quality: PSNR in dB over all pixels; ssim: the mean of images."""
    squares, alike = 0.0, 0.0
    for x, y in zip(data.x.split(500), data.y.split(500), strict=True):
        made = network(x).clamp(0, 1)
        squares += float(functional.mse_loss(made, y)) * len(x)
        alike += float(ssim(made, y).sum())
    n = len(data.x)
    return {"quality": -10 * float(torch.log10(torch.tensor(squares / n))), "ssim": alike / n}


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """float[n]: structural similarity of images from 0 to 1, in windows of 7 x 7.

    Source: Wang et al., 2004, doi:10.1109/TIP.2003.819861.
    """

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 7, 1)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * ma * mb + c1) * (2 * both + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return found.mean((1, 2, 3))


def _block(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
