"""What is refused or stays whole, and that the reason names the node; removal that only looks right is caught."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from prunus.errors import ShrinkError, UnsupportedError
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.remove import dead_groups, shrink
from tests.training.shrink.nets import IMAGE, build


class Between(nn.Module):
    """Two convolutions, with something between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], n: int = 8, **layers: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(n, 4, 3, 1, 1), between
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)))


def unpooled(m: nn.Module, x: Tensor) -> Tensor:
    y, indices = m.down(x)
    return m.up(y, indices)


def mixed(_: nn.Module, x: Tensor) -> Tensor:
    return torch.einsum("bchw,cd->bdhw", x, torch.eye(8))


# what is between the two, and what the reason of `first` has to name
WHOLE = {
    "group norm": (Between(lambda m, x: m.norm(x), norm=nn.GroupNorm(2, 8)), "norm"),
    "layer norm": (Between(lambda m, x: m.norm(x), norm=nn.LayerNorm([8, 16, 16])), "norm"),
    "shuffle": (Between(lambda m, x: F.interpolate(m.up(x), scale_factor=0.5), 2, up=nn.PixelShuffle(2)), "up"),
    "einsum": (Between(mixed), "einsum"),
    "slice": (Between(lambda m, x: x[:, :4], 4), "getitem"),
    "number": (Between(lambda m, x: x.view(-1, 8, 256).view(-1, 8, 16, 16)), "view"),
    "split": (Between(lambda m, x: x.split(4, 1)[0], 4), "split"),
    "count": (Between(lambda m, x: x / x.shape[1]), "getitem"),
    "size": (Between(lambda m, x: x / x.size(1)), "size"),
    "mean": (Between(lambda m, x: x - x.mean(1, keepdim=True)), "mean"),
    "softmax": (Between(lambda m, x: x.softmax(1)), "softmax"),
    "input": (Between(lambda m, x: x + torch.arange(8.0).view(8, 1, 1)), "add"),
    "norm": (Between(lambda m, x: F.normalize(x)), "normalize"),
    "numel": (Between(lambda m, x: x / x.numel()), "numel"),
    "all": (Between(lambda m, x: x / x.std(False)), "std"),
    "parametrised": (Between(lambda m, x: m.more(x), more=weight_norm(nn.Conv2d(8, 8, 1))), "more"),
    "unpool": (Between(unpooled, down=nn.MaxPool2d(2, return_indices=True), up=nn.MaxUnpool2d(2)), "down"),
    "sort": (Between(lambda m, x: x.sort(1)[0]), "sort"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_stays_whole_says_why(name: str) -> None:
    model, node = WHOLE[name]
    groups = find_groups(model.eval(), IMAGE)
    assert groups.n == 0
    assert groups.reasons["first.weight"].startswith(node)
    assert "output" in groups.reasons["last.weight"]


def functional(m: nn.Module, x: Tensor) -> Tensor:
    x = F.batch_norm(x, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias)
    return m.slope(F.conv2d(x, m.extra.weight, m.extra.bias, padding=1))


# what only looks alike is followed
FOLLOWED = {
    "space": Between(lambda m, x: x[..., 1:].mean(-1, keepdim=True) + x.std((2, 3), keepdim=True)),
    "attention": Between(lambda m, x: x * m.one(x), one=nn.Conv2d(8, 1, 1)),
    "shape": Between(lambda m, x: x.view(x.shape[0], x.shape[1], 256).view(x.size(0), -1, 16, 16)),
    "halves": Between(lambda m, x: x.split(x.shape[1] // 2, dim=1)[0], 4),
    "stack": Between(lambda m, x: torch.stack([x, x.relu()], 1).sum(1)),
    "last": Between(lambda m, x: m.norm(x), norm=nn.LayerNorm(16)),
    "instance": Between(lambda m, x: m.norm(x), norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    "permuted": Between(lambda m, x: m.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), fc=nn.Linear(8, 8)),
    "pad": Between(lambda m, x: F.pad(m.pad(x), (0, -2, 0, -2)), pad=nn.ReflectionPad2d(1)),
    "squeezed": Between(lambda m, x: x + x.mean((2, 3)).unsqueeze(-1)[..., None].squeeze(3).unsqueeze(3)),
    "transposed": Between(lambda m, x: F.max_pool2d(m.up(x), 2), up=nn.ConvTranspose2d(8, 8, 2, 2)),
    "functional": Between(functional, norm=nn.BatchNorm2d(8), extra=nn.Conv2d(8, 8, 3), slope=nn.PReLU(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_followed(name: str) -> None:
    torch.manual_seed(0)
    model = FOLLOWED[name].eval()
    groups = find_groups(model, IMAGE)
    assert "first.weight" not in groups.reasons and groups.n >= 4
    keep = np.arange(groups.n) % 3 > 0
    smaller = shrink(model, IMAGE, keep, groups)
    assert find_groups(smaller, IMAGE).macs() == groups.macs(keep) < groups.macs()


def test_scales_and_tied_weights() -> None:
    layers = {"one": nn.Conv2d(8, 8, 3, 1, 1), "two": nn.Conv2d(8, 8, 3, 1, 1)}
    model = Between(lambda m, x: m.two(m.one(x).relu()) * m.scale, **layers)
    model.two.weight = model.one.weight
    model.scale = nn.Parameter(torch.rand(8, 1, 1))
    groups = find_groups(model, IMAGE)
    assert groups.n == 8  # the shared weight's filters and channels are the same ones
    smaller = shrink(model, IMAGE, np.arange(8) < 5, groups)
    assert smaller.one.weight is smaller.two.weight and smaller.scale.shape == (5, 1, 1)
    assert smaller.two.weight.shape == (5, 5, 3, 3)


def test_decisions_by_values_are_refused() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.mean() > 0 else x

    with pytest.raises(UnsupportedError, match=r"Deciding: gt: .*values of a tensor"):
        find_groups(Deciding(), IMAGE)


def test_decisions_by_shapes_are_followed() -> None:
    model = Between(lambda m, x: F.pad(x, (0, 1)) if x.shape[-1] % 2 else x)
    assert find_groups(model, IMAGE).n == 8
    assert find_groups(model, IMAGE[..., 1:]).n == 8


def test_inputs_that_do_not_fit() -> None:
    model, _ = build("ResNet")
    with pytest.raises(UnsupportedError, match="ResNet: can't be run on the example inputs"):
        find_groups(model, torch.zeros(1, 5, 16, 16))


def test_keep_by_name() -> None:
    model, x = build("ResNet")
    filters = np.arange(32) % 4 > 0
    smaller = shrink(model, x, {"body.1.down.0": filters})
    assert smaller.body[2].conv2.weight.shape == (24, 32, 3, 3) and smaller.fc.in_features == 24
    assert torch.equal(smaller.body[1].down[0].weight, model.body[1].down[0].weight[torch.from_numpy(filters)])
    with pytest.raises(ShrinkError, match=r"body\.1\.down: no layer"):
        shrink(model, x, {"body.1.down": filters})
    with pytest.raises(ShrinkError, match=r"stem\.0\.weight: found shape \(32,\), expected \(16,\)"):
        shrink(model, x, {"stem.0.weight": filters})
    with pytest.raises(ShrinkError, match=r"found shape \(7,\), expected \(128,\)"):
        shrink(model, x, np.ones(7, bool))
    whole = shrink(model, x, {"fc": np.zeros(10, bool)})  # outputs stay
    assert torch.equal(whole(x), model(x))


def test_a_layer_cannot_vanish() -> None:
    model, x = build("Vgg")
    with pytest.raises(ShrinkError, match=r"features\.2\.0\.weight: none of 32 filters"):
        shrink(model, x, {"features.2.0": np.zeros(32, bool)})


def test_zero_filters_with_a_constant_stay() -> None:
    model, x = build("Vgg")
    with torch.no_grad():
        model.features[0][0].weight[3] = 0  # BatchNorm's shift stays: not the same as no channel
    groups = find_groups(model, x)
    assert dead_groups(model, groups).all()
    assert shrink(model, x).features[0][0].out_channels == 16


def test_what_answers_otherwise_is_refused() -> None:
    class Counting(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.out_channels

    Counting.__module__ = "torch.nn.modules.conv"  # as fx has it, a module to leave whole
    model = Between(lambda m, x: m.odd(x), odd=Counting(8, 8, 3, 1, 1))
    with pytest.raises(ShrinkError, match="output 0: differs from the masked network"):
        shrink(model, IMAGE, {"odd": np.arange(8) < 4})


def test_a_network_that_breaks_is_refused() -> None:
    class Reading(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 8:
                raise ValueError("I wanted 8 channels")
            return super().forward(x)

    Reading.__module__ = "torch.nn.modules.activation"  # as fx has it, a module to leave whole
    model = Between(lambda m, x: m.odd(x), odd=Reading())
    with pytest.raises(ShrinkError, match="can't be run without the channels: I wanted 8 channels"):
        shrink(model, IMAGE, {"first": np.arange(8) < 4})
