"""Recipes of SparseML, read as recipes of ours."""

from pathlib import Path

import pytest

from prunus.errors import RecipeError
from prunus.pruning.selection import matches
from prunus.training.recipe import load_recipe
from prunus.training.sparseml import convert, is_sparseml

GRADUAL = """
num_epochs: 20.0
pruning_end: eval(num_epochs * 0.5 + 2)
init_lr: 0.01

training_modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)
  - !LearningRateFunctionModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)
    init_lr: eval(init_lr)
    final_lr: 0.0
    lr_func: cosine

pruning_modifiers:
  - !GMPruningModifier
    params: ["sections.0.0.conv1.weight", "re:classifier.*weight"]
    init_sparsity: 0.05
    final_sparsity: 0.8
    start_epoch: 0.0
    end_epoch: eval(pruning_end)
    update_frequency: 0.5
    mask_type: block4
  - !MagnitudePruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.05
    final_sparsity: 0.5
    start_epoch: 0.0
    end_epoch: eval(pruning_end)
    update_frequency: 0.5
    mask_type: "2:4"

quantization_modifiers:
  - !QuantizationModifier
    start_epoch: 16.0
"""
GLOBAL = """---
version: 1.1.0
modifiers:
  - !GlobalMagnitudePruningModifier
      init_sparsity: 0.05
      final_sparsity: 0.9
      start_epoch: 1.0
      end_epoch: 10.0
      params: ["re:.*conv.*weight"]
---

# A recipe

- with words
"""


def write(folder: Path, text: str, name: str = "old.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_gradual_pruning(tmp_path: Path) -> None:
    path = write(tmp_path, GRADUAL)
    assert is_sparseml(path)
    converted = convert(path)
    recipe = load_recipe(converted.recipe)
    assert recipe.method == "gradual"
    assert (recipe.epochs.sparsify, recipe.epochs.recover) == (12, 8)
    assert (recipe.gradual.start, recipe.gradual.updates) == (0.05, 2)
    assert [(rule.match, rule.scheme, rule.sparsity) for rule in recipe.layers] == [
        ("sections.0.0.conv1.weight", "punched:1x4", 0.8),
        ("re:^(?:classifier.*weight)", "punched:1x4", 0.8),
        ("re:.*", "2:4", 0.5),
    ]
    assert (recipe.optimizer.rate, recipe.optimizer.schedule) == (0.01, "cosine")
    assert converted.left_out == ("QuantizationModifier: give epochs.quantise instead",)


def test_global_pruning_in_front_of_a_page(tmp_path: Path) -> None:
    path = write(tmp_path, GLOBAL, "recipe.md")
    assert is_sparseml(path)
    converted = convert(path)
    recipe = load_recipe(converted.recipe)
    assert (recipe.scope, recipe.layers[0].sparsity, recipe.epochs.sparsify) == ("global", 0.9, 9)
    assert any("1 epochs before pruning" in line for line in converted.left_out)


def test_sparsities_of_their_own_per_layer(tmp_path: Path) -> None:
    text = """
modifiers:
  - !GMPruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.0
    final_sparsity: {0.9: [a.weight], 0.7: [b.weight, "re:^c"]}
    start_epoch: 0.0
    end_epoch: 4.0
"""
    rules = convert(write(tmp_path, text)).recipe["layers"]
    assert [(rule["match"], rule["sparsity"]) for rule in rules] == [
        ("a.weight", 0.9),
        ("b.weight", 0.7),
        ("re:^c", 0.7),
    ]


def test_ours_are_not_theirs(tmp_path: Path) -> None:
    assert not is_sparseml(write(tmp_path, "version: 1\nlayers: []\n# - a Modifier\n"))
    assert not is_sparseml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m:\n  - !OBSPruningModifier\n    start_epoch: 0\n", "OBSPruningModifier: prunes in a way of its own"),
        ("m:\n  - !MyModifier\n    start_epoch: 0\n", "MyModifier: unknown modifier"),
        ("m:\n  - !EpochRangeModifier\n    end_epoch: 3\n", "no modifier that prunes"),
        ("m:\n  - !GMPruningModifier\n    final_sparsity: eval(a + 1)\n", "no variable a"),
        ("m:\n  - !GMPruningModifier\n    final_sparsity: eval(exit())\n", r"exit\(\) isn't computed"),
        ("m:\n  - !GMPruningModifier\n    end_epoch: 3\n", "final_sparsity: missing, expected a number"),
        ("m:\n  - !GMPruningModifier\n    final_sparsity: .5\n    mask_type: odd\n", "mask_type odd: expected one of"),
        ("m:\n  - !GMPruningModifier\n    final_sparsity: '{{ a }}'\n", "templates aren't read"),
        ("m:\n  - !GMPruningModifier\n  x: [\n", "not YAML"),
    ],
)
def test_what_cannot_be_converted(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"old\.yaml: .*{words}"):
        convert(write(tmp_path, text))


def test_zeros_that_are_kept(tmp_path: Path) -> None:
    text = "modifiers:\n  - !ConstantPruningModifier\n    params: __ALL_PRUNABLE__\n    start_epoch: 0.0\n"
    text += "  - !EpochRangeModifier\n    start_epoch: 0.0\n    end_epoch: 5.0\n"
    recipe = load_recipe(convert(write(tmp_path, text)).recipe)
    assert (recipe.method, recipe.layers[0].match, recipe.layers[0].keep) == ("one-shot", "re:.*", True)
    assert recipe.epochs.sparsify + recipe.epochs.recover == 5


def test_their_patterns_match_from_the_start_of_a_name(tmp_path: Path) -> None:
    text = "m:\n  - !ConstantPruningModifier\n    params: ['re:conv1', 're:.*fc', 're:^a|b', 'conv2.weight']\n"
    rules = load_recipe(convert(write(tmp_path, text)).recipe).layers
    hit = [rule.match for rule in rules if matches(rule.match, ("layer1.conv1", "layer1.conv1.weight"))]
    assert not hit, "their re:conv1 doesn't reach layer1.conv1"
    for rule, name in zip(rules, ("conv1.weight", "head.fc.weight", "b.weight", "conv2.weight"), strict=True):
        assert matches(rule.match, (name,)), name
    assert not matches(rules[2].match, ("cb.weight",))


def test_epochs_are_those_of_what_prunes(tmp_path: Path) -> None:
    prune = (
        "  - !GMPruningModifier\n    final_sparsity: 0.8\n    params: [{}]\n    start_epoch: {}\n    end_epoch: {}\n"
    )
    keep = "  - !ConstantPruningModifier\n    params: ['re:a']\n    start_epoch: 0\n"
    late = convert(write(tmp_path, "m:\n" + keep + prune.format("b.weight", 4, 10)))
    assert late.recipe["epochs"] == {"sparsify": 6, "recover": 0}
    assert any("4 epochs before pruning" in line for line in late.left_out)
    early = convert(write(tmp_path, "m:\n" + prune.format("b.weight", -1, 10)))
    assert early.recipe["epochs"]["sparsify"] == 10 and not early.left_out
    two = convert(write(tmp_path, "m:\n" + prune.format("a.weight", 0, 10) + prune.format("b.weight", 2, 8)))
    assert two.recipe["epochs"]["sparsify"] == 10
    assert any("schedules of their own" in line for line in two.left_out)
