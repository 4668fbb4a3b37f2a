"""A Pruner that removes filters: masks over coupled layers, the smaller network, what is exported."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import prunus
from prunus.errors import PrunusWarning, RecipeError, RuleError, ShrinkError, TrainingError
from prunus.training.recipe import load_recipe
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.latency import measured
from tests.training.shrink.nets import IMAGE, build
from tests.training.shrink.test_nets import distance

SKIP = {"match": "re:fc|body.9$|^b$|last", "skip": True}
ALL = {"match": "re:.*", "scheme": "filter"}


def recipe(**keys: Any) -> dict[str, Any]:
    return {
        "epochs": {"sparsify": 2, "recover": 1},
        "layers": [SKIP, ALL],
        "remove": {"macs": 0.5, "round_to": 1},
    } | keys


def trained(model: nn.Module, x: Tensor, pruner: prunus.Pruner, n_steps: int = 12) -> None:
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(n_steps):
        loss = model(x).square().sum() + pruner.penalty()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pruner.step()


@pytest.mark.parametrize("method", ["one-shot", "gradual", "admm", "reweighted"])
@pytest.mark.parametrize("name", ["ResNet", "MobileNet"])
def test_every_method(name: str, method: str, tmp_path: Path) -> None:
    model, x = build(name)
    dense = find_groups(model, x)
    model.train()
    pruner = prunus.Pruner(model, recipe(method=method), example_inputs=x, steps_per_epoch=4)
    trained(model, x, pruner)
    report = pruner.finalize()
    smaller = pruner.shrink().eval()
    model.eval()
    assert distance(smaller(x), model(x)) < 1e-5
    kept = find_groups(smaller, x).macs() / dense.macs()
    assert 0.48 <= kept <= 0.5
    assert report.sparsity > 0.1 and any("filters" in layer.note for layer in report.layers)
    pruner.export(tmp_path / "small.onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(None, {"x": x.numpy()})
    assert distance(torch.from_numpy(found), smaller(x)) < 1e-5
    assert (tmp_path / "small.onnx").stat().st_size < sum(p.numel() for p in model.parameters()) * 4


def test_gradual_comes_about_gradually() -> None:
    model, x = build("ResNet")
    whole = find_groups(model, x)
    pruner = prunus.Pruner(
        model.train(), recipe(method="gradual", gradual={"updates": 4}), example_inputs=x, steps_per_epoch=4
    )
    seen, known = list[int](), {}
    for _ in range(8):
        trained(model, x, pruner, 1)
        masks = pruner.masks
        assert all(not (masks[name] & ~known[name]).any() for name in known)  # what is gone stays gone
        seen.append(sum(int(mask.sum()) for mask in masks.values()))
        known = masks
    assert seen == sorted(seen, reverse=True) and len(set(seen)) > 3
    for name, parameter in model.named_parameters():
        if name in known:
            assert not parameter.detach()[torch.from_numpy(~known[name])].any()
    assert whole.n == 128


def test_coupled_layers_lose_the_same_filters() -> None:
    model, x = build("ResNet")
    layers = [SKIP, {"match": "re:conv1|stem", "scheme": "filter", "sparsity": 0.25}, {**ALL, "sparsity": 0.5}]
    pruner = prunus.Pruner(model, recipe(layers=layers, remove={"round_to": 1}), example_inputs=x)
    masks = pruner.masks
    last = [masks[f"body.{name}.weight"].any((1, 2, 3)) for name in ("1.conv2", "1.down.0", "2.conv2")]
    assert all((last[0] == mask).all() for mask in last) and last[0].sum() == 16
    assert (masks["body.2.conv1.weight"].any((0, 2, 3)) == last[0]).all()
    assert masks["body.1.bn2.bias"].tolist() == last[0].tolist() and (masks["fc.weight"].any(0) == last[0]).all()
    assert masks["body.2.conv1.weight"].any((1, 2, 3)).sum() == 24
    assert masks["stem.0.weight"].any((1, 2, 3)).sum() == 10  # rules of 0.25 and 0.5 are coupled


def test_channels_are_filters_of_the_layer_before() -> None:
    model, x = build("Vgg")
    layers = [{"match": "a", "scheme": "channel", "sparsity": 0.5}]
    with torch.no_grad():
        model.a.weight.view(64, 32, 4)[:, ::2] = 1e-3
    pruner = prunus.Pruner(model, recipe(layers=layers, remove={"round_to": 1}), example_inputs=x)
    pruner.finalize()
    assert pruner.shrink().features[4][0].out_channels == 16
    assert not pruner.masks["features.4.0.weight"][::2].any() and pruner.masks["features.4.0.weight"][1::2].all()


def test_skipped_layers_stay_whole_with_all_they_are_coupled_with() -> None:
    model, x = build("ResNet")
    layers = [SKIP, {"match": "body.1.down.0", "skip": True}, {**ALL, "sparsity": 0.5}]
    with pytest.warns(PrunusWarning, match=r"body\..\.conv2\.weight stays whole: coupled with a layer that is skipped"):
        pruner = prunus.Pruner(model, recipe(layers=layers, remove={"round_to": 1}), example_inputs=x)
    assert pruner.masks["body.1.conv2.weight"].any((1, 2, 3)).all()
    assert pruner.masks["body.1.conv1.weight"].any((1, 2, 3)).sum() == 16


def test_outputs_stay_whole_and_say_so() -> None:
    model, x = build("Vgg")
    with pytest.warns(PrunusWarning, match=r"^b\.weight stays whole: log_softmax"):
        pruner = prunus.Pruner(model, recipe(layers=[ALL]), example_inputs=x)
    pruner.finalize()
    assert pruner.shrink()(x).shape == (2, 10)
    with pytest.raises(RuleError, match=r"nothing can go \(b\.weight stays whole"):
        prunus.Pruner(model, recipe(layers=[{"match": "b", "scheme": "filter"}]), x)


def test_without_remove_outputs_are_warned_of() -> None:
    model, x = build("Vgg")
    layers = [{**ALL, "sparsity": 0.5}]
    with pytest.warns(PrunusWarning, match=r"b\.weight: its filters are outputs of the network"):
        pruner = prunus.Pruner(model, {"layers": layers}, x)
    with pytest.raises(TrainingError, match="no remove"):
        pruner.shrink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prunus.Pruner(model, {"layers": [SKIP, *layers]}, x)
        prunus.Pruner(model, {"layers": [{**layers[0], "scheme": "channel"}]}, x)


def test_a_checkpoint_goes_on_with_the_same_widths() -> None:
    model, x = build("ResNet")
    pruner = prunus.Pruner(model.train(), recipe(method="gradual"), example_inputs=x, steps_per_epoch=4)
    trained(model, x, pruner, 5)
    twin, _ = build("ResNet")
    with torch.no_grad():
        for parameter in twin.parameters():  # the other way round: widths would be others
            parameter.mul_(torch.rand(len(parameter)).reshape(-1, *[1] * (parameter.ndim - 1)))
    again = prunus.Pruner(twin.train(), recipe(method="gradual"), example_inputs=x, steps_per_epoch=4)
    twin.load_state_dict(model.state_dict())
    again.load_state_dict(pruner.state_dict())
    assert torch.equal(again.state_dict()["widths/"], pruner.state_dict()["widths/"])
    for net, each in ((model, pruner), (twin, again)):
        torch.manual_seed(0)
        trained(net, x, each, 7)
        each.finalize()
    assert pruner.masks.keys() == again.masks.keys()
    assert all((again.masks[name] == mask).all() for name, mask in pruner.masks.items())


def test_latency_decides() -> None:
    model, x = build("Vgg")
    called = list[int]()

    def latency(smaller: nn.Module) -> float:
        called.append(1)
        return float(smaller.features[0][0].out_channels)  # nothing else costs time

    pruner = prunus.Pruner(model, recipe(), example_inputs=x, latency=latency)
    pruner.finalize()
    smaller = pruner.shrink()
    assert smaller.features[0][0].out_channels < 16 and smaller.features[2][0].out_channels == 32
    assert len(called) > 1


@pytest.mark.parametrize("engine", ["prunus", "onnxruntime"])
def test_engines_are_measured(engine: str) -> None:
    model, x = build("Vgg")
    seconds = measured(x, engine, seconds=0.01)(model)  # type: ignore[arg-type]
    assert 0 < seconds < 1
    pruner = prunus.Pruner(model, recipe(remove={"macs": 0.5, "latency": engine}), example_inputs=x)
    pruner.finalize()
    assert distance(pruner.shrink()(x), model(x)) < 1e-5


def test_not_before_the_masks_are_final() -> None:
    model, x = build("ResNet")
    pruner = prunus.Pruner(model, recipe(method="gradual"), example_inputs=x, steps_per_epoch=4)
    with pytest.raises(TrainingError, match="finalize"):
        pruner.shrink()
    with pytest.raises(TrainingError, match="no example inputs"):
        prunus.Pruner(model, recipe())
    with pytest.raises(ShrinkError, match=r"macs 0\.001: can't be reached"):
        prunus.Pruner(model, recipe(remove={"macs": 0.001}), x)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"layers": [{"match": "re:.", "scheme": "bcr:8x64", "sparsity": 0.5}]},
            "bcr:8x64, expected filter or channel",
        ),
        ({"layers": [{**ALL, "sparsity": 0.5}]}, "one of the two"),
        ({"remove": {}}, "no sparsity, expected one, or remove.macs"),
        ({"gradual": {"regrowth": True}}, "regrowth"),
        ({"scope": "global"}, "remove.macs"),
        ({"remove": {"mac": 0.5}}, "did you mean macs"),
        ({"remove": {"macs": 1.5}}, "1.5"),
        ({"remove": {"macs": 0.5, "round_to": 0}}, "round_to"),
    ],
)
def test_recipes_that_make_no_sense(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe(**keys))


def test_a_recipe_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe()))
    assert load_recipe(path).remove == load_recipe(recipe()).remove
    assert load_recipe(path, ["remove.round_to=auto"]).remove.round_to == "auto"
    assert np.isclose(load_recipe(path, ["remove.macs=0.3"]).remove.macs, 0.3)
    assert IMAGE.shape == (2, 3, 16, 16)
