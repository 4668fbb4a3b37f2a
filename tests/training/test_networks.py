"""Networks by name and weights by file, and what is said where they don't fit."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunus.errors import MissingExtraError, TrainingError
from prunus.training.networks import build, has_weights
from prunus.training.standard import Network
from tests.training.toy import write_toy


def test_functions_of_files_and_packages(tmp_path: Path) -> None:
    write_toy(tmp_path)
    first = build(Network(build=f"{tmp_path}/net.py:make", arguments={"width": 12}), 3)
    again = build(Network(build=f"{tmp_path}/net.py:make", arguments={"width": 12}), 3)
    assert first.state_dict()["1.weight"].shape[0] == 12
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    linear = build(Network(build="torch.nn:Linear", arguments={"in_features": 3, "out_features": 2}), 0)
    assert isinstance(linear, torch.nn.Linear)
    for name, words in (
        ("net.py:number", "returned a int, expected a torch.nn.Module"),
        ("net.py:fails", "ZeroDivisionError"),
        ("net.py:nothing", "no function 'nothing'"),
        ("absent.py:make", "no file"),
    ):
        with pytest.raises(TrainingError, match=f"model.build: .*{words}"):
            build(Network(build=f"{tmp_path}/{name}"), 0)
    with pytest.raises(TrainingError, match="ModuleNotFoundError"):
        build(Network(build="no.such.package:make"), 0)
    with pytest.raises(TrainingError, match=r"make\(\) got an unexpected keyword"):
        build(Network(build=f"{tmp_path}/net.py:make", arguments={"depth": 1}), 0)


def test_weights_of_both_kinds(tmp_path: Path) -> None:
    write_toy(tmp_path)
    made = f"{tmp_path}/net.py:make"
    weights = build(Network(build=made), 1).state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        network = Network(build=made, weights=str(tmp_path / name))
        assert has_weights(network)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in build(network, 0).state_dict().items())
    assert not has_weights(Network(build=made))
    assert has_weights(Network(build="a.onnx"))


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    write_toy(tmp_path)
    weights = build(Network(build=f"{tmp_path}/net.py:make"), 1).state_dict()
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    (tmp_path / "text.safetensors").write_text("no")
    torch.save([1], tmp_path / "list.pt")
    torch.save({k: v for k, v in weights.items() if k != "1.bias"}, tmp_path / "less.pt")
    torch.save({**weights, "more": torch.zeros(1)}, tmp_path / "more.pt")
    torch.save({**weights, "1.bias": torch.zeros(9)}, tmp_path / "shape.pt")
    for name, words in (
        ("none.pt", "no such file"), ("module.pt", "not weights that can be read"), ("text.safetensors", "not weights"),
        ("list.pt", ".*expected a state_dict"), ("less.pt", "no 1.bias"), ("more.pt", "more is none of the network's"),
        ("shape.pt", r"1\.bias is \[9\], expected \[8\]"),
    ):  # fmt: skip
        with pytest.raises(TrainingError, match=f"{name}: {words}"):
            build(Network(build=f"{tmp_path}/net.py:make", weights=str(tmp_path / name)), 0)


def test_timm_by_name() -> None:
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(MissingExtraError, match="timm:resnet18: needs timm"):
            build(Network(build="timm:resnet18"), 0)
        return
    assert isinstance(build(Network(build="timm:resnet18", arguments={"num_classes": 3}), 0), torch.nn.Module)


def test_onnx_layers_can_be_pruned(tmp_path: Path) -> None:
    import onnx

    from prunus.training.layers import find_layers
    from tests.runtime.networks import classifier

    onnx.save(classifier("batch"), tmp_path / "model.onnx")
    model = build(Network(build=str(tmp_path / "model.onnx")), 0)
    layers = find_layers(model)
    assert layers
    known = dict(model.named_parameters())
    for layer in layers:
        assert layer.weight is known[layer.parameter]
