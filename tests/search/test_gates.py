"""Gates: forward, backward, where they go, and that what they mask can be removed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.errors import ShrinkError, UnsupportedError
from prunus.search.branches import Branches, merge
from prunus.search.costs import macs
from prunus.search.families import light, repvgg
from prunus.search.gates import DepthwiseBinary, Gated, Gates, insert_gates
from prunus.search.pas import WidthSearch
from prunus.training.shrink.follow import find_groups
from tests.training.shrink.nets import IMAGE, ResNet, block, build
from tests.training.shrink.nets import NETS as SHRUNK


def trained(net: nn.Module) -> nn.Module:
    """Weights and statistics that aren't those of the beginning."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.3
    return net.eval()


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "resnet": trained(ResNet()),
        "branches": trained(repvgg([[12], [12, 12], [24, 24]], 10)),
        "light": trained(light([[8, 16], [24, 24]], 10)),
    }


def some(gated: Gated, seed: int = 0) -> np.ndarray:
    """About half of the groups of each bundle, one at least."""
    rng, keep = np.random.default_rng(seed), np.zeros(gated.groups.n, bool)
    for members in gated.groups.bundles:
        keep[members] = rng.random(len(members)) < 0.5
        keep[members[0]] = True
    return keep


def test_forward_and_backward() -> None:
    net = nn.Sequential(block(3, 4), nn.Conv2d(4, 2, 1))
    gates = Gates(find_groups(net, IMAGE))
    gate = DepthwiseBinary(gates, 1, np.array([0, 1, 2, 3]))
    gates.b.data = torch.tensor([1.0, 0.5, 0.51, -3.0])
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = gate(x)
    assert torch.equal(y, x * torch.tensor([1.0, 0, 1, 0])[:, None, None])
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(slope)
    assert torch.allclose(gates.b.grad, (slope * x).sum((0, 2, 3)))  # a masked channel hears of it as well
    assert (x.grad[:, 1] == 0).all()
    gates.b.data = torch.tensor([0.1, 0.2, 0.4, 0.3])
    assert gates.alive().tolist() == [0, 0, 1, 0]  # the last one of a layer stays


def test_a_masked_channel_comes_back() -> None:
    net = nn.Sequential(block(3, 4), nn.Conv2d(4, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    search = WidthSearch(net, IMAGE, macs, 1.0, 10)
    search.network.gates.b.data = torch.tensor([1.0, 1.0, 0.45, 1.0])
    net[1].weight.data = torch.tensor([0.0, 0.0, 5.0, 0.0])[None, :, None, None]  # only the masked one can help
    optimizer = torch.optim.SGD([search.network.gates.b], lr=0.05)
    assert not search.network.keep()[2]
    for _ in range(20):
        loss = -search.network(IMAGE).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert search.network.keep()[2]


@pytest.mark.parametrize("name", ["resnet", "branches", "light"])
def test_masked_is_removed(name: str) -> None:
    net = nets()[name]
    search = WidthSearch(net, IMAGE, macs, 1.0, 10)
    found = search.freeze(some(search.network))
    smaller = search.shrink().eval()
    with torch.no_grad():
        masked, removed = search.network.eval()(IMAGE), smaller(IMAGE)
    assert torch.allclose(masked, removed, atol=1e-5 * float(masked.abs().max()))
    assert macs(find_groups(smaller, IMAGE)).whole == round(found.cost * search.cost.whole)
    assert not any(isinstance(module, Branches) for module in smaller.modules())
    assert any(after < before for before, after in found.widths.values())


def test_gates_change_nothing_at_first() -> None:
    for net in nets().values():
        with torch.no_grad():
            assert torch.equal(insert_gates(net, IMAGE).eval()(IMAGE), net(IMAGE))


def test_layers_with_branches_are_free_of_each_other() -> None:
    groups = insert_gates(nets()["branches"], IMAGE).groups
    assert len(groups.bundles) == 5
    residual = insert_gates(nets()["resnet"], IMAGE).groups
    assert len(residual.bundles) == 5  # two stages and the middle of each of three blocks


def test_the_step_between_layers_of_three_and_four_channels() -> None:
    torch.manual_seed(0)
    net = trained(nn.Sequential(Branches(3, 8), nn.ReLU(), Branches(8, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))).double()
    image = IMAGE.double()
    search = WidthSearch(net, image, macs, 1.0, 10)
    keep = np.zeros(16, bool)
    keep[[0, 3, 5, 8, 9, 12, 15]] = True
    search.network.gates.double()
    search.freeze(keep)
    smaller = search.shrink()
    assert [m.out_channels for m in smaller.modules() if isinstance(m, nn.Conv2d)] == [3, 4, 2]
    with torch.no_grad():
        assert float((search.network.eval()(image) - smaller(image)).abs().max()) < 1e-11


@pytest.mark.parametrize(("stride", "o", "groups"), [(1, 6, 1), (2, 6, 1), (1, 9, 1), (1, 6, 6), (1, 6, 2)])
def test_branches_merge(stride: int, o: int, groups: int) -> None:
    torch.manual_seed(1)
    net = trained(Branches(6, o, stride, groups))
    x = torch.randn(2, 6, 7, 7)
    with torch.no_grad():
        assert torch.allclose(net(x), merge(net)(x), atol=1e-5)


def test_training_reaches_the_weights() -> None:
    net = nets()["branches"]
    search = WidthSearch(net, IMAGE, macs, 0.5, 10)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(search.network.weights(), lr=0.1, momentum=0.9)
    search.network.train()
    loss = search.network(IMAGE).square().mean() + search.penalty()
    loss.backward()
    optimizer.step()
    assert search.network.plain is net
    assert any(not torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert len({id(p) for group in optimizer.param_groups for p in group["params"]}) == len(list(net.parameters()))


def test_nothing_to_search() -> None:
    with pytest.raises(ShrinkError, match="no channel can go"):
        insert_gates(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), IMAGE)


def test_budget_below_the_floor() -> None:
    with pytest.raises(ShrinkError, match=r"budget 0\.001: can't be reached, expected at least"):
        WidthSearch(nets()["resnet"], IMAGE, macs, 0.001, 10)


@pytest.mark.parametrize("name", sorted(SHRUNK))
def test_masked_is_removed_in_all_that_can_be_followed(name: str) -> None:
    """Recurrent layers read their own units, networks differ in training: what is trained is what is written."""
    net, x = build(name)
    search = WidthSearch(net, x, macs, 1.0, 10)
    search.freeze(some(search.network))
    smaller = search.shrink().eval()
    with torch.no_grad():
        masked, removed = search.network.eval()(x), smaller(x)
    parts = [(masked, removed)] if isinstance(masked, torch.Tensor) else list(zip(masked, removed, strict=True))
    for got, wanted in parts:
        assert torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_units_that_are_read_over_time_have_the_gradient_of_all_that(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    net, x = Last(kind(5, 6, 2, batch_first=True)), torch.randn(3, 4, 5)
    gated = insert_gates(net, x)
    gated(x).square().sum().backward()
    wanted = []
    for unit in range(gated.groups.n):
        sums = []
        for by in (-1e-2, 1e-2):
            scaled = copy.deepcopy(net)
            for (name, dim), ids in gated.groups.ties.items():  # wherever the unit is read
                if dim == 1 and (columns := torch.from_numpy(ids == unit)).any():
                    dict(scaled.named_parameters())[name].data[:, columns] *= 1 + by
            with torch.no_grad():
                sums.append(float(scaled.double()(x.double()).square().sum()))
        wanted.append((sums[1] - sums[0]) / 2e-2)
    assert gated.gates.b.grad is not None
    assert torch.allclose(gated.gates.b.grad.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-2, atol=1e-4)


class Last(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.layer(x)[0][:, -1])
        return y


class Dropping(nn.Module):
    """helper: another head, in training only."""

    def __init__(self, helper: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.helper = nn.Linear(8, 4) if helper else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.conv(x)).mean((2, 3))
        answers: torch.Tensor = self.head(functional.dropout(y, 0.5, self.training))
        if self.helper is not None and self.training:
            answers = answers + self.helper(y)
        return answers


def test_dropout_by_a_function_is_for_training_only() -> None:
    torch.manual_seed(0)
    net = Dropping().eval()
    gated = insert_gates(net, IMAGE)
    with torch.no_grad():
        assert torch.equal(gated.eval()(IMAGE), net(IMAGE))
        gated.train()
        assert not torch.equal(gated(IMAGE), gated(IMAGE))


def test_other_layers_in_training_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="Dropping: helper: in training only, expected the same layers"):
        insert_gates(Dropping(helper=True), IMAGE)


def test_equals_at_the_bottom_do_not_all_live() -> None:
    gates = Gates(find_groups(nn.Sequential(block(3, 4), block(4, 3), nn.Conv2d(3, 2, 1)), IMAGE))
    gates.b.data = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.4, 0.4])
    assert gates.alive().tolist() == [1, 0, 0, 0, 0, 1, 0]


def test_statistics_stay_where_shapes_decide() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = block(3, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.body(x)
            y = functional.avg_pool2d(y, 2) if y.shape[2] > 4 else y
            answers: torch.Tensor = self.head(y.mean((2, 3)))
            return answers

    net = Deciding()
    before = copy.deepcopy(net.state_dict())
    insert_gates(net, IMAGE)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
