"""Convolutions that are trained as several branches and used as one: structural reparameterisation.

Source: Ding et al., "RepVGG", CVPR 2021, arXiv:2101.03697, section 3.3: 3x3, 1x1 and identity, each with a BatchNorm,
summed. As no branch goes around the convolution once they are merged, every layer may have a width of its own.
"""

from typing import cast, final

import torch
from torch import Tensor, nn

from prunus.training.shrink.follow import copy_of


@final
class Branches(nn.Module):
    """3x3 + 1x1 + identity, each with BatchNorm; identity where both sides are as wide and the stride is 1.

    float[n, i, h, w] to float[n, o, h / stride, w / stride].
    """

    def __init__(self, i: int, o: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(i, o, 3, stride, 1, groups=groups, bias=False)
        self.conv1 = nn.Conv2d(i, o, 1, stride, 0, groups=groups, bias=False)
        self.norm3, self.norm1 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.norm0 = nn.BatchNorm2d(i) if i == o and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches."""
        y: Tensor = self.norm3(self.conv3(x)) + self.norm1(self.conv1(x))
        return y if self.norm0 is None else y + cast(Tensor, self.norm0(x))

    @property
    def scales(self) -> Tensor:
        """float[o]: BatchNorm's of the convolutions, together."""
        return self.norm3.weight + self.norm1.weight

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """One convolution that answers alike once statistics stand still; computed in float64."""
        conv = self.conv3
        i, o, groups = conv.in_channels, conv.out_channels, conv.groups
        center = torch.zeros(o, i // groups, 3, 3, dtype=torch.float64)
        center[:, :, 1:2, 1:2] = self.conv1.weight.double()
        parts = [(conv.weight.double(), self.norm3), (center, self.norm1)]
        if self.norm0 is not None:
            same = torch.zeros_like(center)
            same[torch.arange(o), torch.arange(o) % (i // groups), 1, 1] = 1
            parts.append((same, self.norm0))
        kernel, bias = torch.zeros_like(center), torch.zeros(o, dtype=torch.float64)
        for weight, norm in parts:
            mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
            scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
            kernel += weight * scale[:, None, None, None]
            bias += norm.bias.double() - mean * scale
        made = nn.Conv2d(i, o, 3, conv.stride[0], 1, groups=groups).to(conv.weight)
        made.weight.copy_(kernel)
        assert made.bias is not None
        made.bias.copy_(bias)
        return made


def merge(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each Branches as one convolution of the same name; the model itself stays.

    Raises UnsupportedError: it can't be copied.
    """
    made = copy_of(model)
    made.eval()
    for name, module in list(made.named_modules()):
        if isinstance(module, Branches):
            if not name:
                return module.merged()
            made.set_submodule(name, module.merged())
    return made


def branched(model: nn.Module) -> bool:
    """Is there anything to merge?"""
    return any(isinstance(module, Branches) for module in model.modules())
