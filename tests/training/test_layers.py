"""Which weights are found, and which rule each of them falls under."""

import pytest
import torch
from torch import nn

from prunus.errors import RuleError, TrainingError
from prunus.training.layers import Dense, Target, assign, find_layers
from prunus.training.recipe import Rule

ALL = Rule(match="re:.*", scheme="unstructured", sparsity=0.5)


class Parts(nn.Module):
    """Each kind of layer once, under its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 6, 3)
        self.image = nn.Conv2d(4, 6, 3)
        self.cube = nn.Conv3d(4, 6, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 3)
        self.full = nn.Linear(4, 6)
        self.norm = nn.BatchNorm2d(4)
        self.gru = nn.GRU(4, 6, num_layers=2, bidirectional=True)
        self.lstm = nn.LSTM(4, 6, proj_size=3)
        self.cell = nn.GRUCell(4, 6)
        self.words = nn.Embedding(5, 4)


def test_every_kind_of_layer_is_found() -> None:
    found = {layer.parameter: layer for layer in find_layers(Parts())}
    one_way = [f"{kind}_l{n}{back}" for n in (0, 1) for back in ("", "_reverse") for kind in ("weight_ih", "weight_hh")]
    assert list(found) == [
        "line.weight", "image.weight", "cube.weight", "depthwise.weight", "grouped.weight", "up.weight", "full.weight",
        *(f"gru.{key}" for key in one_way), "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_hr_l0",
        "cell.weight_ih", "cell.weight_hh",
    ]  # fmt: skip
    assert found["gru.weight_ih_l0"].name == "gru" and tuple(found["gru.weight_ih_l0"].weight.shape) == (18, 4)
    refused = {name: layer.refusal for name, layer in found.items() if layer.refusal}
    assert set(refused) == {"depthwise.weight", "grouped.weight", "up.weight"}
    assert "grouped" in refused["depthwise.weight"] and "transposed" in refused["up.weight"]


def test_the_model_itself_may_be_a_layer() -> None:
    (layer,) = find_layers(nn.Linear(3, 2))
    assert (layer.name, layer.parameter) == ("", "weight")
    targets, _ = assign([layer], [Rule(match="weight", scheme="filter", sparsity=0.5)])
    assert targets[0].layer is layer


def test_a_shared_weight_comes_once_under_all_its_names() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    shared, other = find_layers(network)
    assert shared.names == ("0", "0.weight", "2", "2.weight") and other.names == ("3", "3.weight")
    targets, dense = assign([shared, other], [Rule(match="2", skip=True), ALL])
    assert [item.layer.parameter for item in dense] == ["0.weight"]
    assert [item.layer.parameter for item in targets] == ["3.weight"]


def test_a_weight_shared_with_a_grouped_convolution_stays_dense() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    network[1].weight = network[0].weight
    (layer,) = find_layers(network)
    assert "grouped" in layer.refusal


def test_a_computed_weight_stays_dense() -> None:
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    first, _ = find_layers(network)
    assert "computed" in first.refusal
    targets, dense = assign(find_layers(network), [ALL])
    assert [item.layer.name for item in targets] == ["1"] and [item.layer.name for item in dense] == ["0"]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_computed_weights_of_recurrent_layers_stay_dense() -> None:
    old = nn.utils.weight_norm(nn.LSTM(4, 6), "weight_hh_l0")  # type: ignore[no-untyped-call]
    new = nn.utils.parametrizations.weight_norm(nn.GRU(4, 6), "weight_ih_l0")
    for module, computed, plain in ((old, "weight_hh_l0", "weight_ih_l0"), (new, "weight_ih_l0", "weight_hh_l0")):
        found = {layer.parameter: layer.refusal for layer in find_layers(nn.Sequential(module))}
        assert set(found) == {f"0.{computed}", f"0.{plain}"}
        assert "computed" in found[f"0.{computed}"] and not found[f"0.{plain}"]


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        Rule(match="image", skip=True),
        Rule(match="full.weight", scheme="filter", sparsity=0.25),
        Rule(match="re:^gru\\.weight_hh", scheme="bcr:4x4", sparsity=0.75),
        Rule(match="re:^(gru|full|image)$", scheme="2:4"),
    ]
    targets, dense = assign(find_layers(Parts()), rules)
    found = {item.layer.parameter: (str(item.scheme), item.sparsity) for item in targets}
    assert found["full.weight"] == ("filter", 0.25)
    assert found["gru.weight_hh_l1_reverse"] == ("bcr:4x4", 0.75) and found["gru.weight_ih_l0"] == ("2:4", 0.5)
    assert {item.reason for item in dense if item.layer.name == "image"} == {"skipped"}
    assert {item.reason for item in dense if item.layer.name == "line"} == {"no rule"}


def test_what_cant_take_its_scheme_stays_dense_and_says_why() -> None:
    rules = [Rule(match="re:.*", scheme="pattern:4", sparsity=0.8)]
    targets, dense = assign(find_layers(Parts()), rules)
    assert [item.layer.parameter for item in targets] == ["image.weight"]
    reasons = {item.layer.parameter: item.reason for item in dense}
    assert "3x3" in reasons["full.weight"] and "grouped" in reasons["depthwise.weight"]


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        ([Rule(match="imag", skip=True), ALL], ["'imag'", "did you mean", "image"]),
        ([Rule(match="re:^x", skip=True), ALL], ["'re:^x'", "no layer"]),
        ([Rule(match="re:(", skip=True), ALL], ["'re:('", "not a valid pattern"]),
        ([Rule(match="norm", skip=True), ALL], ["'norm'", "no layer"]),
        ([Rule(match="re:.*", skip=True)], ["no layer is left", "line", "skipped"]),
        ([Rule(match="depthwise", scheme="filter", sparsity=0.5)], ["no layer is left"]),
    ],
)
def test_rules_that_cant_be(rules: list[Rule], facts: list[str]) -> None:
    with pytest.raises(RuleError) as caught:
        assign(find_layers(Parts()), rules)
    said = str(caught.value)
    assert "\n" not in said and [fact for fact in facts if fact not in said] == [], said


def test_a_model_without_layers() -> None:
    with pytest.raises(RuleError, match="there are none"):
        assign(find_layers(nn.ReLU()), [ALL])


def test_what_has_no_weights() -> None:
    with pytest.raises(TrainingError, match=r"1\.weight has no shape yet"):
        find_layers(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))
    with pytest.raises(TrainingError, match="found str, expected a torch"):
        find_layers("model.onnx")  # type: ignore[arg-type]


def test_a_layer_follows_its_module() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    (layer,) = find_layers(network)
    network[0].weight = nn.Parameter(torch.ones(2, 3))
    assert layer.weight is network[0].weight
    assert isinstance(assign([layer], [ALL])[0][0], Target) and Dense(layer, "").layer is layer
