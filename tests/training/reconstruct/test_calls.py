"""Columns that layers read: weight times columns is what the layer answers, whatever its shape."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunus.training.reconstruct.calls import Call, Watch, order, run

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 7), (4, 5)),
    "linear on a sequence": (nn.Linear(5, 7), (4, 3, 5)),
    "linear without bias": (nn.Linear(5, 7, bias=False), (4, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 4, 9, 8)),
    "conv2d same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), (2, 4, 9, 8)),
    "conv2d valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 9, 8)),
    "conv2d circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 6, 6)),
    "conv2d on one": (nn.Conv2d(4, 6, 3, padding=1), (4, 6, 6)),
    "conv3d": (nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 1)), (2, 2, 4, 5, 6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_columns(name: str) -> None:
    layer: Any
    layer, shape = LAYERS[name]
    (call,) = run(layer, (torch.randn(shape, generator=torch.Generator().manual_seed(0)),), {"w": layer.weight}, 1)
    chosen = torch.randperm(call.positions(), generator=torch.Generator().manual_seed(1))
    answers = layer.weight.detach().reshape(len(layer.weight), -1).double() @ call.columns(chosen)
    if layer.bias is not None:
        answers = answers + layer.bias.detach().double()[:, None]
    torch.testing.assert_close(answers, call.outputs(chosen), rtol=1e-5, atol=1e-5)


def test_order_is_that_of_calls_and_shared_weights_have_several() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.late(F.relu(self.twice(F.relu(self.twice(x), inplace=True))))

    net = Net()
    calls, watch = order(net, (torch.ones(1, 3),), ["late.weight", "never.weight", "twice.weight"])
    assert [(name, len(made)) for name, made in calls.items()] == [("twice.weight", 2), ("late.weight", 1)]
    assert watch.ranges == {"twice.weight": (0.0, float("inf"))}


def test_outputs_are_those_before_an_activation_in_place() -> None:
    layer, x = nn.Linear(3, 4), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(layer(F.relu(layer(x), inplace=True)[:, :3]), inplace=True)

    first, _ = run(Net(), (x,), {"w": layer.weight}, 2)
    torch.testing.assert_close(first.output, layer(x))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (nn.ReLU(), (0.0, float("inf"))),
        (nn.ReLU6(), (0.0, 6.0)),
        (nn.Hardtanh(-2.0, 3.0), (-2.0, 3.0)),
        (lambda x: torch.clamp(x, 0.0, 4.0), (0.0, 4.0)),
        (lambda x: x.clamp(max=4.0), (-float("inf"), 4.0)),
        (nn.Tanh(), None),
    ],
)
def test_ranges(activation: Any, expected: tuple[float, float] | None) -> None:
    layer, seen = nn.Linear(3, 3), list[Call]()
    with torch.no_grad(), Watch({"w": layer.weight}, lambda name, call: seen.append(call)) as watch:
        activation(layer(torch.ones(1, 3)))
    assert len(seen) == 1
    assert watch.ranges.get("w") == expected
