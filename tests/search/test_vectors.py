"""Costs of networks whose numbers are published, for images of 224 x 224; run on a 49th of that, where every feature
map has exactly a 49th of the pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.search.costs import macs, weights
from prunus.search.families import B1_LAYERS, B1_WIDTHS, repvgg
from prunus.training.shrink.follow import find_groups

A = [
    [8], [20, 16, 15, 10], [49, 41, 36, 34, 39, 31],
    [125, 107, 102, 97, 106, 123, 127, 170, 196, 202, 232, 269, 315, 425, 475, 450], [2048],
]  # fmt: skip
B = [
    [11], [29, 32, 27, 23], [68, 57, 55, 65, 79, 79],
    [208, 198, 193, 175, 201, 240, 254, 323, 357, 378, 412, 442, 483, 496, 510, 487], [2048],
]  # fmt: skip
B1 = [[o] * n for o, n in zip(B1_WIDTHS, B1_LAYERS, strict=True)]
IMAGE, SMALLER = torch.zeros(1, 3, 32, 32), 49
FC = 2048 * 1000


@pytest.mark.parametrize(
    ("widths", "n_macs", "n_weights"),
    [(A, 2_102_335_200, 18_655_124), (B, 4_035_635_100, 28_347_530), (B1, 11_813_437_440, 51_816_128)],
)
def test_released_widths(widths: list[list[int]], n_macs: int, n_weights: int) -> None:
    groups = find_groups(repvgg(widths, branches=False), IMAGE)
    assert (macs(groups).whole - FC) * SMALLER == n_macs
    assert (groups.macs() - FC) * SMALLER == n_macs
    assert weights(groups).whole == n_weights


class Bottleneck(nn.Module):
    def __init__(self, i: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(i, width, 1), nn.Conv2d(width, width, 3, stride, 1)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.down = nn.Conv2d(i, 4 * width, 1, stride) if stride > 1 or i != 4 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x).relu()).relu()
        return functional.relu(self.conv3(y) + self.down(x))


def test_resnet50() -> None:
    layers, i = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, n in enumerate((3, 4, 6, 3)):
        for block in range(n):
            width = 64 << stage
            layers.append(Bottleneck(i, width, 2 if stage and block == 0 else 1))
            i = 4 * width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    groups = find_groups(net, IMAGE)
    counted = [call for call in groups.calls if ".down." not in call.weight and groups.shapes[call.weight][0] != 1000]
    assert len(counted) == 49
    total = sum(call.positions * int(np.prod(groups.shapes[call.weight])) for call in counted)
    assert total * SMALLER == 3_727_474_688
