"""Layers of an exported file are found again in the module."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus.errors import RuleError
from prunus.mapping.names import parameters_of
from prunus.mapping.space import LayerSpace, Option, Space
from prunus.pruning.onnx_weights import read, weights
from prunus.pruning.torch_module import to_module
from prunus.training.export import export_onnx
from prunus.training.layers import find_layers


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return made


CHOICE = (Option(None, 0.0, 1.0), Option("filter", 0.5, 0.5))


def network() -> nn.Sequential:
    blocks = nn.Sequential(Block(), Block())
    return nn.Sequential(nn.Conv2d(1, 2, 3), blocks, nn.Flatten(), nn.Linear(72, 3)).eval()


def test_an_exported_file_and_its_module(tmp_path: Path) -> None:
    model = network()
    proto = export_onnx(model, tmp_path / "net.onnx", torch.zeros(2, 1, 8, 8))
    layers = [LayerSpace(w.layer, w.name, "conv", read(w).shape, 1, CHOICE) for w in weights(proto)]
    space = Space(tuple(layers), 0.0)
    expected = [
        "0.weight", "1.0.conv.weight", "1.0.shortcut.0.weight", "1.1.conv.weight", "1.1.shortcut.0.weight", "3.weight",
    ]  # fmt: skip
    assert parameters_of(space, find_layers(model)) == [(name,) for name in expected]
    own = parameters_of(space, find_layers(to_module(proto)))
    assert [name for (name,) in own] == [layer.weight for layer in layers]
    with pytest.raises(RuleError, match=r"layer /1/1\.1/conv/Conv is none of the module's; expected one as"):
        parameters_of(space, find_layers(model)[:3])
    wrong = Space((replace(layers[0], shape=(2, 1, 5, 5)),), 0.0)
    with pytest.raises(RuleError, match=r"/0/Conv: \[2, 1, 5, 5\] in the file, \[2, 1, 3, 3\] in the module"):
        parameters_of(wrong, find_layers(model))


def test_layers_with_several_weights_or_none() -> None:
    """Of a recurrent layer all weights are meant; one that can't be pruned isn't looked for."""
    model = nn.ModuleDict({"gru": nn.GRU(3, 4)})
    several = LayerSpace("x", "W", "recurrent", (12, 3), 1, CHOICE, ("gru.weight_hh_l0", "gru.weight_ih_l0"))
    named = LayerSpace("gru", "", "recurrent", (12, 3), 1, CHOICE)
    fixed = LayerSpace("depthwise", "", "conv", (4, 1, 3, 3), 1, CHOICE[:1])
    both = ("gru.weight_ih_l0", "gru.weight_hh_l0")
    assert parameters_of(Space((several, named, fixed), 0.0), find_layers(model)) == [both, both, ()]
