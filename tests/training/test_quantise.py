"""Rounding while training: what it does to weights and inputs, and that it leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunus.training.quantise import Rounding, round_weight
from tests.training.networks import cnn, digits


def test_weights_are_multiples_of_each_filters_scale() -> None:
    weight = torch.randn(6, 4, 3, 3)
    weight[2] = 0
    weight[:, 1] = 0
    rounded = round_weight(weight)
    top = weight.abs().amax((1, 2, 3), keepdim=True)
    steps = rounded / (top / 127).clamp(min=1e-12)
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert float((rounded - weight).abs().max()) <= float((top / 254).max()) * 1.001
    assert not rounded[2].any() and not rounded[:, 1].any()


def test_the_gradient_is_that_of_the_identity() -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad((round_weight(weight) * 3).sum(), weight)
    assert (gradient == 3).all()


def test_layers_are_restored_in_their_order() -> None:
    network = cnn()
    before = {name: (id(value), value.detach().clone()) for name, value in network.named_parameters()}
    plain = network.eval()(digits()[0][:8])
    rounding = Rounding(network)
    assert not torch.equal(network(digits()[0][:8]), plain)
    assert list(dict(network.named_parameters())) == list(before), "optimisers count parameters by their order"
    for name, value in network.named_parameters():
        assert id(value) == before[name][0] and torch.equal(value, before[name][1])
    rounding.remove()
    assert torch.equal(network(digits()[0][:8]), plain)


def test_gradients_flow_to_weights_and_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    Rounding(network)
    x = torch.randn(3, 1, 8, 8, requires_grad=True)
    network(x).square().sum().backward()
    assert x.grad is not None and x.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


class Broken(nn.Linear):
    """Fails where it is asked to."""

    fails = False

    def forward(self, input: Tensor) -> Tensor:
        """As Linear, or ValueError."""
        if self.fails:
            raise ValueError("broken")
        return super().forward(input)


def test_a_failure_inside_a_layer_leaves_it_whole() -> None:
    network = nn.Sequential(Broken(4, 3))
    rounding = Rounding(network)
    weight = network[0].weight
    network[0].fails = True
    with pytest.raises(ValueError, match="broken"):
        network(torch.ones(1, 4))
    assert network[0].weight is weight and list(dict(network.named_parameters())) == ["0.weight", "0.bias"]
    with pytest.raises((RuntimeError, AttributeError)):
        network(None)
    assert network[0].weight is weight
    network[0].fails = False
    network(torch.ones(1, 4))
    with rounding.off():
        assert torch.equal(network(torch.ones(1, 4)), nn.functional.linear(torch.ones(1, 4), weight, network[0].bias))


def test_inputs_by_name_are_rounded_too() -> None:
    layer = nn.Linear(4, 3)
    Rounding(layer)
    x = torch.randn(5, 4)
    assert torch.equal(layer(input=x), layer(x))


def test_inputs_are_rounded_by_their_range_and_zero_stays() -> None:
    rounding = Rounding(nn.Sequential(nn.Linear(4, 4)))
    x = torch.tensor([-1.0, 0.0, 0.3, 3.0])
    rounded = rounding._round_input("0", x, True)
    step = 4 / 255
    assert float((rounded - x).abs().max()) <= step / 2 + 1e-6 and float(rounded[1]) == 0
    again = rounding._round_input("0", x * 10, False)
    assert float(again.max()) == pytest.approx(3.0, abs=step), "evaluation keeps the range"
    rounding._round_input("0", x * 10, True)
    assert float(rounding.state()["0"][1]) == pytest.approx(3 + 0.01 * 27), "a running mean"
    positive = rounding._round_input("1", torch.tensor([2.0, 4.0]), True)
    assert float(positive[0]) == pytest.approx(2.0, abs=4 / 255)


def test_state_is_the_ranges() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    first = Rounding(network)
    network(torch.randn(8, 4))
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    first.remove()
    second = Rounding(network)
    second.load(state)
    assert torch.equal(second.state()["0"], state["0"])


def test_a_copy_is_rounded_on_its_own() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    rounding = Rounding(network)
    network(torch.ones(2, 4))
    twin = copy.deepcopy(network)
    x = torch.randn(5, 4)
    network.eval(), twin.eval()
    assert torch.equal(network(x), twin(x))
    twin.train()(100 * x)
    assert float(rounding.state()["0"].abs().max()) < 50, "the copy has ranges of its own"
    rounding.remove()
    assert not torch.equal(network(x), twin.eval()(x))
    assert list(twin.state_dict()) == list(network.state_dict()) == ["0.weight", "0.bias"]
    assert twin[0].weight is not network[0].weight
    np.testing.assert_array_equal(twin[0].weight.detach().numpy(), network[0].weight.detach().numpy())


def test_parametrised_layers_are_left_alone() -> None:
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    x = torch.randn(2, 4)
    before = network(x)
    Rounding(network)
    assert torch.equal(network(x), before)
