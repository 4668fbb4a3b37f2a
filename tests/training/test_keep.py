"""Zeros that a network comes with stay, and no more come."""

import pytest
import torch
from torch import nn

from prunus.errors import RecipeError, RuleError
from prunus.training.pruner import Pruner
from prunus.training.recipe import load_recipe


def test_only_the_zeros_that_were_there(tmp_path: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 8), nn.Linear(8, 8))
    zeros = torch.rand(9, 12) < 0.63
    with torch.no_grad():
        model[0].weight[zeros] = 0
    recipe = {"layers": [{"match": "3", "scheme": "channel", "sparsity": 0.5}, {"match": "re:.*", "keep": True}]}
    pruner = Pruner(model, recipe, steps_per_epoch=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 12)).square().sum().backward()
        optimizer.step()
        pruner.step()
    report = {layer.name: layer for layer in pruner.finalize().layers}
    assert torch.equal(model[0].weight == 0, zeros)
    assert (report["2"].scheme, report["2"].sparsity) == (None, 0.0)
    assert report["3"].sparsity == 0.5


@pytest.mark.parametrize("method", ["one-shot", "gradual", "admm", "reweighted"])
def test_they_are_zero_all_along(method: str) -> None:
    """They neither learn before the method has come round to them, nor give way to other zeros."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 8))
    zeros = torch.rand(9, 12) < 0.63
    with torch.no_grad():
        model[0].weight[zeros] = 0
    rules = [{"match": "2", "scheme": "block-column:2x1", "sparsity": 0.5}, {"match": "re:.*", "keep": True}]
    recipe = {"method": method, "layers": rules, "epochs": {"sparsify": 3, "recover": 1}, "scope": "global"}
    pruner = Pruner(model, recipe, steps_per_epoch=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.5, 0.9)
    for step in range(8):
        if step == 4:
            state = pruner.state_dict()
            pruner = Pruner(model, {**recipe}, steps_per_epoch=2)
            pruner.load_state_dict(state)
        loss = model(torch.randn(4, 12)).square().mean() + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
        assert torch.equal(model[0].weight == 0, zeros), step
    assert {layer.name: layer.sparsity for layer in pruner.finalize().layers}["2"] == pytest.approx(0.5, abs=0.02)
    assert torch.equal(model[0].weight == 0, zeros)


def test_by_any_name_of_a_shared_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[0] = 0
    report = Pruner(model, {"layers": [{"match": "1", "keep": True}]}).finalize()
    assert report.layers[0].sparsity == 0.25


def test_rules_that_keep_say_nothing_else() -> None:
    for more in ({"skip": True}, {"scheme": "filter"}, {"sparsity": 0.5}):
        with pytest.raises(RecipeError, match="expected one of the"):
            load_recipe({"layers": [{"match": "a", "keep": True, **more}]})
    with pytest.raises(RecipeError, match="remove: rule 'a' has keep"):
        rules = [{"match": "a", "keep": True}, {"match": "b", "scheme": "filter", "sparsity": 0.5}]
        load_recipe({"layers": rules, "remove": {}})
    with pytest.raises(RuleError, match="nine"):
        Pruner(nn.Sequential(nn.Linear(2, 2)), {"layers": [{"match": "nine", "keep": True}]})
