"""The Pruner as a user's loop meets it: phases, resuming, finalizing, wrapped models, bad input."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

import prunus
from prunus.errors import CheckpointError, PrunusWarning, RecipeError, RuleError, TrainingError
from prunus.sparsity.check import check
from prunus.sparsity.project import TOLERANCE
from prunus.sparsity.scheme import parse
from prunus.training.methods import METHODS
from prunus.training.pruner import Pruner
from tests.training.networks import PRUNED, Recurrent, accuracy, cnn, digits, sgd, steps_per_epoch, train, trained

RULES = [{"match": PRUNED, "scheme": "bcr:8x16", "sparsity": 0.75}]
VARIANTS: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS},
    **{f"{method}, column-row": {"method": method, "bcr": "column-row"} for method in METHODS},
    **{f"{method}, global": {"method": method, "scope": "global"} for method in METHODS},
    "one-shot, taylor": {"method": "one-shot", "criterion": "taylor", "collect": 5},
    "gradual, fisher": {"method": "gradual", "criterion": "fisher", "collect": 3},
    "gradual, regrowth": {"method": "gradual", "gradual": {"regrowth": True, "updates": 2}},
    "gradual, start": {"method": "gradual", "gradual": {"start": 0.3}},
    "gradual, regrowth, column-row, taylor": {
        "method": "gradual", "gradual": {"regrowth": True}, "bcr": "column-row", "criterion": "taylor", "collect": 2,
    },
    "admm, one-sided": {"method": "admm", "admm": {"one_sided": True}},
    "reweighted, squared": {"method": "reweighted", "reweighted": {"norm": "squared"}},
    "reweighted, by value": {"method": "reweighted", "layers": [{"match": PRUNED, "scheme": "bcr:8x16"}]},
    "gradual, 2:4": {"method": "gradual", "layers": [{"match": PRUNED, "scheme": "2:4"}]},
}  # fmt: skip
STEPS = 4  # per epoch


def recipe_of(name: str) -> dict[str, Any]:
    return {"epochs": {"sparsify": 2, "recover": 1, "quantise": 1}, "layers": RULES, **VARIANTS[name]}


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)


SLOW = [pytest.param(name, marks=[pytest.mark.slow] if "global" in name else []) for name in VARIANTS]


@pytest.mark.parametrize("name", SLOW)
def test_resumed_at_any_step_it_ends_the_same(name: str) -> None:
    """Network, optimiser and pruner are saved after each step of one run; others go on from there to its end."""
    torch.set_num_threads(1)
    network = trained()
    optimizer = optimizer_of(network)
    pruner = Pruner(network, recipe_of(name), steps_per_epoch=STEPS)
    saved: dict[int, tuple[Any, Any, Any]] = {}

    def save(step: int) -> None:
        saved[step] = tuple(copy.deepcopy(part.state_dict()) for part in (network, optimizer, pruner))  # type: ignore[assignment]

    save(0)
    train(network, 4 * STEPS, optimizer, pruner, after=save)
    masks = pruner.masks
    for step in (0, 1, 4, 5, 7, 8, 11, 12, 13):
        again = cnn(seed=step + 1)
        twin_optimizer = optimizer_of(again)
        twin = Pruner(again, recipe_of(name), steps_per_epoch=STEPS)
        weights, momenta, state = saved[step]
        again.load_state_dict(weights)
        twin_optimizer.load_state_dict(momenta)
        before = {key: value.clone() for key, value in again.state_dict().items()}
        twin.load_state_dict(state)
        for key, value in again.state_dict().items():
            assert torch.equal(value, before[key]), f"loading changed {key} at {step}"
        assert twin.n_steps == step
        again_state = twin.state_dict()
        assert set(again_state) == set(state) and all(torch.equal(again_state[key], state[key]) for key in state), step
        if step in (5, 7, 13):
            train(again, 4 * STEPS, twin_optimizer, twin, start=step)
            for key, mask in masks.items():
                np.testing.assert_array_equal(twin.masks[key], mask)
            for key, value in network.state_dict().items():
                assert torch.equal(again.state_dict()[key], value), f"{key} differs, resumed at {step}"


def test_a_state_after_finalize_stays_final() -> None:
    network = trained()
    pruner = Pruner(network, recipe_of("gradual"), steps_per_epoch=STEPS)
    train(network, 3, optimizer_of(network), pruner)
    pruner.finalize()
    twin = Pruner(copy.deepcopy(network), recipe_of("gradual"), steps_per_epoch=STEPS)
    twin.load_state_dict(pruner.state_dict())
    train(twin.model, 4 * STEPS, optimizer_of(twin.model), twin, start=3)
    assert twin.phase != "quantise"
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(twin.masks[name], mask)


def test_states_of_others_are_refused_and_nothing_changes() -> None:
    network = trained()
    pruner = Pruner(network, recipe_of("admm"), steps_per_epoch=STEPS)
    before = pruner.state_dict()
    other = nn.Sequential(nn.Linear(4, 4))
    state = Pruner(
        other, {**recipe_of("admm"), "layers": [{**RULES[0], "match": "0"}]}, steps_per_epoch=STEPS
    ).state_dict()
    with pytest.raises(CheckpointError, match=r"another model.*weight"):
        pruner.load_state_dict(state)
    state = Pruner(trained(), recipe_of("gradual"), steps_per_epoch=STEPS).state_dict()
    with pytest.raises(CheckpointError, match=r"another recipe: method is gradual, expected admm"):
        pruner.load_state_dict(state)
    with pytest.raises(CheckpointError, match="identity"):
        pruner.load_state_dict(network.state_dict())
    after = pruner.state_dict()
    assert set(before) == set(after) and all(torch.equal(before[key], after[key]) for key in before)


def test_phases_follow_the_clock() -> None:
    network = cnn()
    pruner = Pruner(network, recipe_of("gradual"), steps_per_epoch=STEPS)
    assert pruner.epochs == 4
    phases = [pruner.phase]
    train(network, 16, sgd(network), pruner, after=lambda _: phases.append(pruner.phase))
    assert phases == ["sparsify"] * 8 + ["recover"] * 4 + ["quantise"] * 5
    pruner.finalize()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", VARIANTS)
def test_finalize_early_twice_and_steps_after_it(name: str) -> None:
    network = trained()
    pruner = Pruner(network, recipe_of(name), steps_per_epoch=STEPS)
    train(network, 3, sgd(network), pruner)
    first = pruner.finalize()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    assert pruner.finalize() == first
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    for layer in first.layers:
        if layer.scheme and name != "reweighted, by value":
            assert layer.note == "" and (
                "global" in name or layer.scheme.name == "n:m" or abs(layer.sparsity - 0.75) <= TOLERANCE
            )
            assert check(pruner.masks[layer.weight], layer.scheme) is None
    masks = pruner.masks
    train(network, 20, sgd(network), pruner, start=3)
    for key, mask in masks.items():
        np.testing.assert_array_equal(pruner.masks[key], mask)
        assert not dict(network.named_parameters())[key].detach().numpy()[~mask].any()
    assert pruner.penalty() == 0.0 and pruner.phase == "recover", "nothing is rounded after finalize"


@pytest.mark.parametrize("name", [name for name in VARIANTS if "global" not in name and "by value" not in name])
def test_a_move_to_float64_in_between(name: str) -> None:
    network = trained()
    pruner = Pruner(network, recipe_of(name), steps_per_epoch=STEPS)
    train(network, 2, sgd(network), pruner)
    network.double()
    train(network, 9, sgd(network), pruner, start=2)
    report = pruner.finalize()
    for layer in report.layers:
        if layer.scheme and layer.scheme.name == "bcr":
            assert abs(layer.sparsity - 0.75) <= TOLERANCE
    for key, mask in pruner.masks.items():
        assert not dict(network.named_parameters())[key].detach().numpy()[~mask].any()


class Line(nn.Module):
    """Conv1d over the rows of an image, then fully connected."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv1d(8, 24, 3, padding=1), nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float[n, 10]."""
        return self.head(self.conv(x.squeeze(1)).relu().flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["gru", "lstm", "conv1d", "linear"])
def test_other_networks(kind: str, method: str) -> None:
    networks = {
        "gru": lambda: Recurrent(nn.GRU), "lstm": lambda: Recurrent(nn.LSTM), "conv1d": Line,
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    }  # fmt: skip
    torch.manual_seed(0)
    network = networks[kind]()
    match = {"gru": "rnn", "lstm": "rnn", "conv1d": "conv", "linear": "1"}[kind]
    recipe = {
        "method": method,
        "epochs": {"sparsify": 2, "recover": 2},
        "layers": [{"match": match, "scheme": "bcr:8x8", "sparsity": 0.6}],
    }
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch())
    train(network, 4 * steps_per_epoch(), torch.optim.AdamW(network.parameters(), lr=1e-2), pruner)
    report = pruner.finalize()
    pruned = [layer for layer in report.layers if layer.scheme]
    assert len(pruned) == (2 if match == "rnn" else 1)
    for layer in pruned:
        assert abs(layer.sparsity - 0.6) <= TOLERANCE and check(pruner.masks[layer.weight], parse("bcr:8x8")) is None
    assert accuracy(network) > 0.7


def test_a_shared_weight_is_pruned_once() -> None:
    network = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    network[2].weight = network[0].weight
    pruner = Pruner(
        network,
        {"method": "admm", "layers": [{"match": "re:.*", "scheme": "block-row:16x16", "sparsity": 0.5}]},
        steps_per_epoch=2,
    )
    penalty = pruner.penalty()
    assert isinstance(penalty, Tensor) and list(pruner.masks) == []
    report = pruner.finalize()
    assert [layer.weight for layer in report.layers] == ["0.weight"] and list(pruner.masks) == ["0.weight"]
    assert report.sparsity == report.overall == 0.5 and network[2].weight is network[0].weight


def test_grouped_and_depthwise_convolutions_stay_dense_with_a_note() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 8, 1))
    recipe = {"layers": [{"match": "re:.*", "scheme": "block-row:16x16", "sparsity": 0.5}]}
    with pytest.warns(PrunusWarning) as caught:
        pruner = Pruner(network, recipe)
    assert [str(item.message) for item in caught] == [
        "0.weight stays dense: grouped convolution", "1.weight stays dense: grouped convolution",
    ]  # fmt: skip
    report = pruner.finalize()
    assert [(layer.weight, layer.scheme is None, layer.sparsity) for layer in report.layers if layer.note] == [
        ("0.weight", True, 0.0), ("1.weight", True, 0.0),
    ]  # fmt: skip
    assert report.overall == pytest.approx(32 / (36 + 16 + 64))


def test_a_sparsity_that_groups_dont_permit_is_reported() -> None:
    network = nn.Sequential(nn.Linear(8, 3))
    pruner = Pruner(network, {"layers": [{"match": "0", "scheme": "block-row:3x8", "sparsity": 0.5}]})
    with pytest.warns(PrunusWarning, match=r"0\.weight: 0\.(3333|6667) zero, asked 0\.5"):
        report = pruner.finalize()
    assert report.layers[0].note.startswith("asked 0.5")


def test_a_weight_that_is_zero_by_chance_is_no_breach_of_its_scheme() -> None:
    network = nn.Sequential(nn.Linear(64, 16))
    pruner = Pruner(network, {"layers": [{"match": "0", "scheme": "bcr:8x16", "sparsity": 0.5}]})
    with torch.no_grad():
        place = tuple(np.argwhere(pruner.masks["0.weight"])[0])
        network[0].weight[place] = 0
    assert pruner.finalize().layers[0].note == ""


def test_zero_epochs_of_anything() -> None:
    network = cnn()
    recipe = {"epochs": {"sparsify": 0, "recover": 0}, "layers": RULES}
    pruner = Pruner(network, recipe)
    assert pruner.epochs == 0 and len(pruner.masks) == 4
    assert abs(pruner.finalize().sparsity - 0.75) <= TOLERANCE


def test_quantise_from_the_start() -> None:
    recipe = {"epochs": {"sparsify": 0, "recover": 0, "quantise": 1}, "layers": RULES}
    pruner = Pruner(cnn(), recipe, steps_per_epoch=3)
    assert pruner.phase == "quantise"


@pytest.mark.parametrize("n", [3, 20])
def test_zeros_stay_zero_while_rounded(n: int) -> None:
    network = trained()
    recipe = {"epochs": {"sparsify": 0, "recover": 0, "quantise": 1}, "layers": RULES}
    pruner = Pruner(network, recipe, steps_per_epoch=20)
    train(network, n, sgd(network), pruner)
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(dict(network.named_parameters())[name].detach().numpy() != 0, mask)
    pruner.finalize()
    assert n < 20 or accuracy(network) > 0.8


def test_a_compiled_model_is_unwrapped() -> None:
    network = trained()
    wrapped = torch.compile(network, backend="eager")
    pruner = Pruner(wrapped, {"method": "one-shot", "layers": RULES})  # type: ignore[arg-type]
    assert pruner.model is network and set(pruner.masks) == {"3.weight", "7.weight", "10.weight", "15.weight"}


def test_a_distributed_model_is_unwrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network, plain = trained(), trained()
        wrapped = nn.parallel.DistributedDataParallel(network)
        pruner = Pruner(wrapped, recipe_of("admm"), steps_per_epoch=STEPS)
        alone = Pruner(plain, recipe_of("admm"), steps_per_epoch=STEPS)
        assert pruner.model is network
        train(wrapped, 10, optimizer_of(network), pruner)
        train(plain, 10, optimizer_of(plain), alone)
        for name, mask in alone.masks.items():
            np.testing.assert_array_equal(pruner.masks[name], mask)
        torch.testing.assert_close(network.state_dict(), plain.state_dict())
    finally:
        dist.destroy_process_group()


def test_gradients_that_are_gone() -> None:
    network = cnn()
    pruner = Pruner(network, recipe_of("one-shot, taylor"), steps_per_epoch=STEPS)
    functional.cross_entropy(network(digits()[0][:4]), digits()[1][:4]).backward()
    network.zero_grad()
    with pytest.raises(TrainingError, match=r"3\.weight has no gradient, and taylor needs one.*zero_grad"):
        pruner.step()


@pytest.mark.parametrize(
    ("recipe", "steps", "error", "facts"),
    [
        ({"layers": [{"match": "stem", "skip": True}, *RULES]}, 1, RuleError, ["'stem'", "no layer"]),
        ({"layers": RULES, "methd": 1}, 1, RecipeError, ["methd", "did you mean method?"]),
        ({"layers": RULES, "method": "admm"}, None, TrainingError, ["admm", "steps_per_epoch"]),
        ({"layers": RULES, "bcr": "column-row"}, None, TrainingError, ["column-row", "steps_per_epoch"]),
        ({"layers": RULES, "epochs": {"quantise": 1}}, None, TrainingError, ["steps_per_epoch"]),
        ({"layers": RULES, "method": "admm"}, 0, TrainingError, ["steps_per_epoch 0"]),
    ],
)  # fmt: skip
def test_bad_input(recipe: dict[str, Any], steps: int | None, error: type[Exception], facts: list[str]) -> None:
    network = cnn()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(error) as caught:
        Pruner(network, recipe, steps_per_epoch=steps)
    said = str(caught.value)
    assert "\n" not in said and [fact for fact in facts if fact not in said] == [], said
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_contracts_loop(tmp_path: Path) -> None:
    model, recipe = cnn(), tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nmethod: admm\nepochs: {sparsify: 1, recover: 1}\nlayers:\n"
        '  - {match: "0", skip: true}\n  - {match: "re:.*", scheme: "bcr:8x64", sparsity: 0.9}\n'
    )
    x, y = digits()[0][:64], digits()[1][:64]
    loader = [(x, y)] * 2
    optimizer = torch.optim.AdamW(model.parameters())
    pruner = prunus.Pruner(model, recipe, example_inputs=x, steps_per_epoch=len(loader))
    for _ in range(pruner.epochs):
        for x, y in loader:
            loss = functional.cross_entropy(model(x), y) + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pruner.step()
    report = pruner.finalize()
    pruner.export(tmp_path / "sparse.onnx")
    assert abs(report.sparsity - 0.9) <= TOLERANCE and (tmp_path / "sparse.onnx").exists()
