"""Small networks of the kinds that are met in the field, all for images of 3 x 16 x 16 but where they say otherwise."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SEQUENCE = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(2))


def block(i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


class Basic(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.down = nn.Sequential()
        if stride > 1 or i != o:
            self.down = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return F.relu(y)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.body = nn.Sequential(Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 32, 1))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean([2, 3]))


class PaddedResNet(nn.Module):
    """Shortcuts that are padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = block(3, 16), block(16, 32, stride=2), nn.Conv2d(32, 32, 3, 1, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.b(self.a(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        return self.fc(F.adaptive_avg_pool2d(y.relu(), 1).flatten(1))


class DenseNet(nn.Module):
    """Normalises what was joined, before each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16 + 8 * n) for n in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(16 + 8 * n, 8, 3, 1, 1) for n in range(3))
        self.fc = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        known = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            known.append(conv(torch.relu(norm(torch.cat(known, 1)))))
        y = self.norms[3](torch.cat(known, dim=1)).relu()
        return self.fc(torch.flatten(F.avg_pool2d(y, 16), 1))


class Inverted(nn.Module):
    """MobileNetV2's block, with squeeze and excitation."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.expand, self.depth = block(i, 4 * i, 1), block(4 * i, 4 * i, 3, stride, 4 * i)
        self.squeeze, self.excite = nn.Conv2d(4 * i, i, 1), nn.Conv2d(i, 4 * i, 1)
        self.project = nn.Sequential(nn.Conv2d(4 * i, o, 1, bias=False), nn.BatchNorm2d(o))
        self.same = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = y * torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = self.project(y)
        return x + y if self.same else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(3, 16, 3, 2), Inverted(16, 24, 1), Inverted(24, 24, 1), nn.Conv2d(24, 32, 3, 1, 1, groups=4),
            nn.Hardswish(), nn.Conv2d(32, 64, 3, 1, 1, groups=32), nn.PReLU(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Vgg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(3, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 32), nn.MaxPool2d(2)
        )
        self.a, self.norm, self.b = nn.Linear(128, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        y = F.dropout(self.norm(self.a(y.view(y.size(0), -1))).relu(), training=self.training)
        return F.log_softmax(self.b(y), 1)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.one, self.three = block(16, 8, 1), nn.Sequential(block(16, 8, 1), block(8, 16))
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), block(16, 8, 1))
        self.depth = nn.Conv2d(32, 32, 5, 1, 2, groups=32)
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.one(x), self.three(x), self.pooled(x)], 1)
        return self.head(self.depth(x)).mean((2, 3))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 8), block(8, 16), block(16, 32)
        self.up, self.merge_b, self.merge_a = nn.ConvTranspose2d(32, 16, 2, 2), block(32, 16), block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        y = self.up(self.c(F.max_pool2d(b, 2)))
        y = self.merge_b(torch.cat((y, b), 1))
        y = F.interpolate(y, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.merge_a(torch.cat((y, a), 1)))


class Shuffled(nn.Module):
    """ShuffleNet: halves that are cut and shuffled; a scale for each channel; weights used twice; gated halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.twice = block(3, 16), block(8, 8), nn.Conv2d(16, 16, 3, 1, 1)
        self.scale = nn.Parameter(torch.rand(16, 1, 1))
        self.wide, self.head = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.branch(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
        x = self.twice(self.twice(x).relu()) * self.scale
        return self.head(F.glu(self.wide(x), 1)).amax((2, 3))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], n_layers: int = 1, two_ways: bool = False) -> None:
        super().__init__()
        self.before = nn.Linear(6, 16)
        self.rnn = kind(16, 24, n_layers, batch_first=True, bidirectional=two_ways)
        self.fc = nn.Linear(48 if two_ways else 24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(torch.tanh(self.before(x)))
        return self.fc(y[:, -1])


class ConvRecurrent(nn.Module):
    """Convolutions over time, then an LSTM whose state is used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.rnn, self.fc = nn.LSTM(16, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm(self.conv(x.transpose(1, 2))))
        _, (h, _) = self.rnn(y.permute(2, 0, 1))
        return self.fc(h[-1])


NETS = {
    "ResNet": (ResNet, IMAGE), "PaddedResNet": (PaddedResNet, IMAGE), "DenseNet": (DenseNet, IMAGE),
    "MobileNet": (MobileNet, IMAGE), "Vgg": (Vgg, IMAGE), "Inception": (Inception, IMAGE), "UNet": (UNet, IMAGE),
    "Shuffled": (Shuffled, IMAGE), "GRU": (lambda: Recurrent(nn.GRU), SEQUENCE),
    "LSTM": (lambda: Recurrent(nn.LSTM, 2), SEQUENCE), "two ways": (lambda: Recurrent(nn.GRU, 2, True), SEQUENCE),
    "ConvRecurrent": (ConvRecurrent, SEQUENCE),
}  # fmt: skip


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics of no special values: BatchNorm would hide its shift otherwise."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.weight.data, 0.5), (module.running_var, 0.5), (module.bias.data, -0.5)):
                tensor.uniform_(low, 1, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network by its name in NETS, and its input."""
    make, inputs = NETS[name]
    torch.manual_seed(0)
    return settled(make()), inputs
