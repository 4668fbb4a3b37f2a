"""Small networks and inputs for the tests of reconstruction."""

import torch
from torch import Tensor, nn


def inputs(*shape: int, seed: int = 0) -> Tensor:
    """Inputs whose channels depend on one another, as those of trained networks do."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    mix = torch.randn(shape[1], shape[1], generator=torch.Generator().manual_seed(99)) / shape[1] ** 0.5
    return torch.einsum("nc...,dc->nd...", x, mix)


class Small(nn.Module):
    """Convolutions of several kinds, of which one is depthwise, and a linear layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.second = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.point = nn.Conv2d(16, 32, 1)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        x = torch.relu(self.second(x))
        return self.linear(torch.relu(self.point(x)).mean((2, 3)))
