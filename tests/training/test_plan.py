"""Plans of exported files, as rules for the module that was exported and for the file as a module."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from prunus.pruning.onnx_weights import weights
from prunus.pruning.torch_module import to_module
from prunus.training.export import export_onnx
from prunus.training.exported import module_name
from prunus.training.layers import assign, find_layers
from prunus.training.plan import Plan, with_plan


def network() -> nn.Sequential:
    """BatchNorm, which the export folds, in a container of its own."""
    block = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4))
    return nn.Sequential(nn.Conv2d(1, 2, 3), block, nn.Flatten(), nn.Linear(64, 3)).eval()


def plan_of(proto: onnx.ModelProto) -> Plan:
    """As `prunus map` writes it: the first layer dense."""
    rules: list[dict[str, Any]] = []
    for number, weight in enumerate(weights(proto)):
        what = {"scheme": "unstructured", "sparsity": 0.5} if number else {"skip": True}
        rules.append({"match": weight.layer, "weight": weight.name, "predicted_ms": 0.1, **what})
    return Plan.model_validate({"layers": rules})


def test_rules_find_the_module_that_was_exported(tmp_path: Path) -> None:
    model = network()
    plan = plan_of(export_onnx(model, tmp_path / "net.onnx", torch.zeros(2, 1, 8, 8)))
    recipe = with_plan({"method": "one-shot"}, plan)
    targets, dense = assign(find_layers(model), recipe.layers)
    assert [target.layer.parameter for target in targets] == ["1.0.weight", "3.weight"]
    assert [item.layer.parameter for item in dense] == ["0.weight"]


def test_rules_find_the_file_as_a_module(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    plan = plan_of(export_onnx(network(), path, torch.zeros(2, 1, 8, 8)))
    recipe = with_plan({"method": "one-shot", "model": {"build": str(path), "input": [1, 8, 8]}}, plan)
    targets, dense = assign(find_layers(to_module(path)), recipe.layers)
    assert (len(targets), len(dense)) == (2, 1)


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/1/1.0/shortcut/shortcut.0/Conv", "1.0.shortcut.0"),
        ("/features/features.10/conv/Conv", "features.10.conv"),
        ("/fc/MatMul", "fc"),
        ("Conv_3", ""),
    ],
)
def test_names_of_nodes(node: str, module: str) -> None:
    assert module_name(node) == module
