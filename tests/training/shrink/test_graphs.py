"""Random small networks of convolutions, sums, joins, cuts and pools: masked and shrunk answer alike."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.remove import shrink
from tests.training.shrink.nets import settled
from tests.training.shrink.test_nets import distance, masked

OPERATORS = (
    "conv", "conv", "conv", "norm", "depthwise", "grouped", "add", "add", "mul", "cat", "cat", "relu", "hardswish",
    "sigmoid", "pool", "chunk", "shuffle", "again", "gate", "scale", "view", "const view", "softmax", "norms", "mean",
)  # fmt: skip


class Random(nn.Module):
    """Each step takes earlier results, as the draws say, and adds one; all last ones are read by a head."""

    def __init__(self, draws: list[tuple[str, int, int, int]]) -> None:
        super().__init__()
        self.steps = list[tuple[str, int, int]]()
        self.layers = nn.ModuleDict()
        self.scales = nn.ParameterDict()
        widths = [3]
        for number, (op, a, b, width) in enumerate(draws):
            a, b = a % len(widths), b % len(widths)
            n = widths[a]
            if op in ("add", "mul"):
                same = [k for k, other in enumerate(widths) if other == n]
                b = same[b % len(same)]
            if (op in ("chunk", "shuffle") and (n % 2 or n < 4)) or (op == "grouped" and n % 4):
                op = "conv"
            wide = 2 * n if width == 4 else n
            made = {"conv": width, "grouped": width, "chunk": n // 2, "depthwise": wide}.get(op, n)
            if op == "cat":
                made = n + widths[b]
            layer: nn.Module | None = None
            if op == "conv":
                layer = nn.Conv2d(n, made, (1, 3)[width % 3 == 0], padding="same", bias=bool(b % 2))
            elif op == "depthwise":
                layer = nn.Conv2d(n, made, 3, padding=1, groups=n)
            elif op == "grouped":
                layer = nn.Conv2d(n, made, 3, padding=1, groups=4 if width == 8 else 2)
            elif op == "norm":
                layer = nn.BatchNorm2d(n)
            elif op == "norms":
                layer = nn.GroupNorm(1, n)
            elif op == "again":
                layer = nn.Conv2d(n, n, 3, padding=1)
            elif op == "scale":
                self.scales[str(number)] = nn.Parameter(torch.rand(n, 1, 1) + 0.5)
            if layer is not None:
                self.layers[str(number)] = layer
            self.steps.append((op, a, b))
            widths.append(made)
        self.head, self.fc = nn.Conv2d(sum(widths[-3:]), 4, 1), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        known = [x]
        for number, (op, a, b) in enumerate(self.steps):
            known.append(self.step(str(number), op, known[a], known[b]))
        y = self.head(torch.cat(known[-3:], 1))
        return self.fc(y.reshape(y.shape[0], -1))

    def step(self, number: str, op: str, x: Tensor, other: Tensor) -> Tensor:
        if op == "again":
            layer = self.layers[number]
            return layer(layer(x).relu())
        if number in self.layers:
            return self.layers[number](x)
        if op == "cat":
            return torch.cat([x, other], 1)
        if op == "chunk":
            left, right = x.chunk(2, dim=1)
            return left - right
        if op == "shuffle":
            n, c, h, w = x.size()
            return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        if op == "gate":
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        if op == "view":
            if x.shape[1] > 4:
                return x.flatten(2).reshape(x.size(0), -1, 4, 4)
            return x.reshape(x.shape[0], x.shape[1], 16)[..., None].view(x.size())
        if op == "const view":
            return x.view(-1, 4, 4).view(2, -1, 4, 4)
        if op == "scale":
            return x * self.scales[number]
        return {
            "add": lambda: x + other, "mul": lambda: x.mul(other), "relu": lambda: F.relu(x),
            "hardswish": lambda: F.hardswish(x), "sigmoid": lambda: x.sigmoid(),
            "pool": lambda: F.max_pool2d(x, 3, 1, 1), "softmax": lambda: x.softmax(1),
            "mean": lambda: x - x.mean(1, keepdim=True),
        }[op]()  # fmt: skip


draw = st.tuples(st.sampled_from(OPERATORS), st.integers(0, 99), st.integers(0, 99), st.sampled_from([4, 6, 8]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(draw, min_size=3, max_size=14), st.integers(0, 2**16))
def test_random_networks(draws: list[tuple[str, int, int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    # results of the last steps come first among what later ones take, so that networks are deep
    deep = [(op, -1 - a % 3, -1 - b % 4, width) for op, a, b, width in draws]
    model = settled(Random(deep))
    x = torch.randn(2, 3, 4, 4)
    groups = find_groups(model, x)
    keep = np.random.default_rng(seed).random(groups.n) >= 0.4
    for ids in groups.ties.values():
        if (ids >= 0).all() and not keep[ids].any():
            keep[ids[0]] = True
    smaller, twin = shrink(model, x, keep, groups), masked(model, groups, keep)
    assert distance(smaller(x), twin(x)) < 1e-5
    assert find_groups(smaller, x).macs() == groups.macs(keep)
    assert sum(p.numel() for p in smaller.parameters()) <= sum(p.numel() for p in model.parameters())
