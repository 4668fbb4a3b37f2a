"""Plans as a recipe's rules: which torch layer a rule of `prunus map` is about."""

import pytest
import torch
from torch import nn

from prunus.errors import RecipeError, RuleError
from prunus.mapping.network import read_network
from prunus.training.export import export_onnx
from prunus.training.layers import assign, find_layers
from prunus.training.plan import Plan, PlanRule, module_of, with_plan


class Block(nn.Module):
    """Convolutions with and without BatchNorm, inside of others, a recurrent layer and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(conv, nn.Sequential(nn.Conv2d(8, 8, 3)))
        self.rnn = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.body(x).mean(2).transpose(1, 2))[0][:, -1])


def test_a_rule_finds_the_layer_of_its_onnx_node(tmp_path: object) -> None:
    model = Block()
    sites = read_network(export_onnx(model, f"{tmp_path}/m.onnx", torch.zeros(1, 1, 8, 8)), threads=1).sites
    names = {}
    for site in sites:
        rule = PlanRule(match=site.name, weight=site.weights[0].name, scheme="filter", sparsity=0.5)
        targets, _ = assign(find_layers(model), [PlanRule.model_validate(rule.of_torch())])
        names[site.name] = [target.layer.parameter for target in targets]
    assert list(names.values()) == [
        ["body.0.0.weight"], ["body.1.0.weight"], ["rnn.weight_ih_l0", "rnn.weight_hh_l0"], ["head.weight"],
    ]  # fmt: skip


def test_modules_in_names_of_nodes() -> None:
    assert module_of("/layer1/layer1.0/conv1/Conv") == "layer1.0.conv1"
    assert module_of("/fc/Gemm") == "fc" and module_of("/Conv") == "" and module_of("conv3") == ""


def test_rules_of_a_recipe_are_replaced() -> None:
    rules = (
        PlanRule(match="/a/Conv", weight="a.weight", scheme="filter", sparsity=0.5, predicted_ms=1.0, sensitivity=0.1),
        PlanRule(match="/b/ConvTranspose", skip=True, dense_ms=1.0, predicted_ms=1.0),  # no weight that is pruned
    )
    recipe = with_plan({"layers": [{"match": "x", "skip": True}]}, Plan(layers=rules))
    assert [(rule.match, rule.scheme, rule.sparsity) for rule in recipe.layers] == [("a.weight", "filter", 0.5)]
    lacking = [PlanRule.model_validate(PlanRule(match="/nowhere/Conv", weight="nowhere.weight", skip=True).of_torch())]
    with pytest.raises(RuleError, match=r"'nowhere\.weight' matches no layer"):
        assign(find_layers(Block()), lacking)
    with pytest.raises(RecipeError, match="keep, expected skip"):
        Plan(layers=(PlanRule(match="a", keep=True),)).choices()
