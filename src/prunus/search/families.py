"""Networks whose widths are free, layer by layer: VGG-like ones that are trained with branches, and light ones.

Source of the first: Ding et al., "RepVGG", CVPR 2021, arXiv:2101.03697, table 2; of the second: Howard et al.,
"MobileNets", arXiv:1704.04861, with branches around the depthwise convolutions as well.
"""

from collections.abc import Sequence

from torch import nn

from prunus.errors import ShrinkError
from prunus.search.branches import Branches

B1_LAYERS = (1, 4, 6, 16, 1)
B1_WIDTHS = (64, 128, 256, 512, 2048)


def repvgg(
    widths: Sequence[Sequence[int]], n_classes: int = 1000, channels: int = 3, branches: bool = True
) -> nn.Sequential:
    """3x3 convolutions with ReLU; each stage begins with stride 2. widths: of the layers of each stage.

    branches False: one convolution with bias per layer, as it is used.
    """
    layers: list[nn.Module] = []
    i = channels
    for stage in widths:
        for number, o in enumerate(stage):
            stride = 2 if number == 0 else 1
            layers.append(Branches(i, o, stride) if branches else nn.Conv2d(i, o, 3, stride, 1))
            layers.append(nn.ReLU())
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, n_classes))


def repvgg_b1(n_classes: int = 1000) -> nn.Sequential:
    """RepVGG-B1."""
    return repvgg([[o] * n for o, n in zip(B1_WIDTHS, B1_LAYERS, strict=True)], n_classes)


def light(widths: Sequence[Sequence[int]], n_classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """A 3x3 convolution of stride 2, then depthwise 3x3 and 1x1 in turns; each further stage begins with stride 2.

    widths: of the layers of each stage; the first one of all is that of the 3x3 convolution.
    """
    flat = [(o, stage > 0 and number == 0) for stage, row in enumerate(widths) for number, o in enumerate(row)]
    first = flat[0][0]
    layers: list[nn.Module] = [nn.Conv2d(channels, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()]
    i = first
    for o, halve in flat[1:]:
        layers += [Branches(i, i, 2 if halve else 1, groups=i), nn.ReLU()]
        layers += [nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, n_classes))


PAS_VGG = ((16,), (16,) * 2, (32,) * 3, (64,) * 4, (256,))  # 1.3 million multiply-adds at 28 x 28
PAS_LIGHT = ((24, 48, 48), (96, 96, 96), (160, 160))  # 3 million


def pas_vgg(n_classes: int = 10, channels: int = 1, scale: float = 1.0) -> nn.Sequential:
    """PaS-VGG for small images: RepVGG-B1's stages, an eighth to a quarter as wide. scale: of all widths."""
    return repvgg(_scaled(PAS_VGG, scale), n_classes, channels)


def pas_light(n_classes: int = 10, channels: int = 1, scale: float = 1.0) -> nn.Sequential:
    """The light family for small images. scale: of all widths."""
    return light(_scaled(PAS_LIGHT, scale), n_classes, channels)


def _scaled(widths: Sequence[Sequence[int]], scale: float) -> list[list[int]]:
    return [[max(1, round(width * scale)) for width in stage] for stage in widths]


# Widths that `prunus search` found on Fashion-MNIST, by the share of multiply-adds that went: docs/search.md.
FOUND: dict[str, dict[float, tuple[int, ...]]] = {
    "pas-vgg": {
        0.3: (14, 16, 14, 31, 30, 25, 62, 55, 46, 36, 138),
        0.5: (12, 15, 14, 26, 25, 20, 49, 43, 37, 28, 104),
        0.66: (9, 13, 9, 23, 22, 17, 41, 35, 31, 25, 80),
        0.75: (8, 11, 8, 20, 17, 15, 36, 31, 25, 21, 77),
        0.82: (7, 9, 7, 18, 15, 12, 30, 24, 21, 17, 68),
    },
    "pas-light": {
        0.5: (19, 36, 33, 67, 64, 59, 85, 155),
        0.75: (10, 23, 20, 47, 44, 36, 66, 146),
    },
}


def found(name: str, removed: float, n_classes: int = 10, channels: int = 1) -> nn.Sequential:
    """A network of a family with widths that were found: "pas-vgg" or "pas-light", without weights.

    removed: the share of multiply-adds that went. Raises ShrinkError: it isn't among those searched.
    """
    widths = FOUND.get(name, {}).get(removed)
    if widths is None:
        there = "; ".join(f"{family}: {', '.join(f'{share:g}' for share in some)}" for family, some in FOUND.items())
        raise ShrinkError(f"no widths of {name!r} with {removed:g} of its multiply-adds removed; there are {there}")
    stages = PAS_VGG if name == "pas-vgg" else PAS_LIGHT
    rest, rows = list(widths), list[list[int]]()
    for stage in stages:
        rows.append(rest[: len(stage)])
        rest = rest[len(stage) :]
    return repvgg(rows, n_classes, channels) if name == "pas-vgg" else light(rows, n_classes, channels)
