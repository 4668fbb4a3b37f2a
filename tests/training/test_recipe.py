"""Recipes: what is accepted, and the one line that says why something isn't."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.errors import RecipeError
from prunus.sparsity.scheme import Scheme
from prunus.training.recipe import (
    Admm,
    Distil,
    Epochs,
    Gradual,
    Recipe,
    Reweighted,
    Rule,
    load_recipe,
    recipe_schema,
)

RULE = {"match": "re:.*", "scheme": "bcr:8x64", "sparsity": 0.9}
LEAST: dict[str, Any] = {"layers": [RULE]}
CONTRACT = """
version: 1
method: admm
epochs: {sparsify: 3, recover: 3}
layers:
  - {match: "re:^stem", skip: true}
  - {match: "re:.*", scheme: "bcr:8x64", sparsity: 0.9}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_contracts_recipe(tmp_path: Path) -> None:
    found = load_recipe(write(tmp_path, CONTRACT))
    assert found.method == "admm" and (found.epochs.sparsify, found.epochs.recover) == (3, 3)
    assert found.layers[0].skip and found.layers[1].sparsity == 0.9


def test_path_text_dict_and_recipe_are_alike(tmp_path: Path) -> None:
    path = write(tmp_path, CONTRACT)
    found = load_recipe(path)
    as_dict = {"method": "admm", "layers": [{"match": "re:^stem", "skip": True}, RULE]}
    assert load_recipe(str(path)) == found == load_recipe(as_dict)
    assert load_recipe(found) is found
    assert load_recipe(found.model_dump(mode="json")) == found


def test_a_dict_may_hold_what_python_has(tmp_path: Path) -> None:
    rule = {"match": "re:.*", "scheme": Scheme("bcr", (8, 64)), "sparsity": np.float32(0.5)}
    assert load_recipe({"layers": (rule,)}).layers[0] == Rule(match="re:.*", scheme="bcr:8x64", sparsity=0.5)
    assert load_recipe({"layers": [Rule(**RULE)]}) == load_recipe(LEAST)


def test_a_dict_is_left_as_it_was() -> None:
    given = {"layers": [dict(RULE)], "variables": {"a": 1}}
    before = json.dumps(given)
    load_recipe(given, ["layers.0.sparsity=0.5", "epochs.recover=9"])
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"metod": "admm"}, ["metod", "unknown key", "did you mean method?"]),
        ({"varibles": {}}, ["varibles", "did you mean variables?"]),
        ({"xyzzy": 1}, ["xyzzy", "expected one of", "layers"]),
        ({"layers": [{**RULE, "sparsty": 1}]}, ["layers.0.sparsty", "did you mean sparsity?"]),
        ({"admm": {"rhos": [1]}}, ["admm.rhos", "did you mean rho?"]),
        ({"distil": {"temprature": 1}}, ["distil.temprature", "did you mean temperature?"]),
        ({"method": "admmm"}, ["method", "'admmm'", "'admm'"]),
        ({"version": 2}, ["version", "2", "1"]),
        ({"epochs": {"sparsify": "three"}}, ["epochs.sparsify", "'three'", "integer"]),
        ({"epochs": {"sparsify": 2.5}}, ["epochs.sparsify", "2.5"]),
        ({"epochs": {"sparsify": -1}}, ["epochs.sparsify", "-1"]),
        ({"epochs": 3}, ["epochs", "3"]),
        ({"layers": []}, ["layers", "empty"]),
        ({"layers": RULE}, ["layers", "array"]),
        ({"layers": [{**RULE, "sparsity": True}]}, ["layers.0.sparsity", "True"]),
        ({"layers": [{**RULE, "sparsity": "0.9"}]}, ["layers.0.sparsity", "'0.9'"]),
        ({"layers": [{**RULE, "sparsity": 90}]}, ["layers.0.sparsity", "90"]),
        ({"layers": [{**RULE, "sparsity": float("nan")}]}, ["layers.0.sparsity", "nan"]),
        ({"layers": [{**RULE, "skip": "yes"}]}, ["layers.0.skip", "'yes'"]),
        ({"layers": [{**RULE, "skip": True}]}, ["layers.0", "re:.*", "skip"]),
        ({"layers": [{"match": "a"}]}, ["layers.0", "'a'", "no scheme"]),
        ({"layers": [{"scheme": "filter", "sparsity": 0.5}]}, ["layers.0.match", "missing"]),
        ({"layers": [{"match": "a", "scheme": "bcr:8x64"}]}, ["layers.0", "bcr:8x64", "no sparsity"]),
        ({"layers": [{"match": "a", "scheme": "2:4", "sparsity": 0.9}]}, ["layers.0", "0.9", "2:4", "exactly 0.5"]),
        ({"layers": [{"match": "a", "scheme": "pattern:4", "sparsity": 0.3}]}, ["layers.0", "0.3", "at least 0.5556"]),
        ({"layers": [{"match": "a", "scheme": "brc:8x64", "sparsity": 0.3}]}, ["layers.0", "'brc:8x64'", "bcr"]),
        ({"admm": {"rho": []}}, ["admm", "rho", "empty"]),
        ({"admm": {"rho": [0.1, -1]}}, ["admm.rho.1", "-1"]),
        ({"criterion": "taylor", "method": "admm"}, ["criterion", "taylor", "admm", "magnitude"]),
        ({"variables": [1]}, ["variables", "a list"]),
        ({"criterion": "${what}"}, ["what", "there is none"]),
        ({"method": datetime.date(2020, 1, 1)}, ["2020", "expected"]),
    ],
)  # fmt: skip
def test_errors_say_where_and_what(change: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({**LEAST, **change})
    said = str(caught.value)
    assert said.startswith("recipe: ") and "\n" not in said
    assert [fact for fact in facts if fact not in said] == [], said


def test_a_dict_that_holds_itself() -> None:
    endless: dict[str, Any] = dict(LEAST)
    endless["gradual"] = endless
    with pytest.raises(RecipeError, match="ircular"):
        load_recipe(endless)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ["nothing", "expected keys"]),
        ("- 1", ["a list"]),
        ("admm", ["text"]),
        ("a: [1", ["not YAML", "line"]),
        ("method: admm\nmethod: gradual", ["not YAML", "line 2", "duplicate"]),
        ("a: 1\n---\nb: 2", ["not YAML"]),
        ("a: !!python/name:os.system x", ["not YAML"]),
        ("method: 2020-01-01", ["2020"]),
        ("a: &a [*a]", ["ircular"]),
        ("1: 2", ["1: unknown key"]),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, facts: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert [fact for fact in facts if fact not in said] == [], said


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"directory"):
        load_recipe(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not text"):
        load_recipe(tmp_path / "binary")


def test_variables(tmp_path: Path) -> None:
    text = """
variables: {rate: 0.8, rows: 4, shape: "bcr:${rows}x16", where: conv}
epochs: {recover: "${rows}"}
layers: [{match: "re:^${where}[0-9]", scheme: "${shape}", sparsity: "${rate}"}]
"""
    (rule,) = load_recipe(write(tmp_path, text)).layers
    assert (rule.match, rule.scheme, rule.sparsity) == ("re:^conv[0-9]", "bcr:4x16", 0.8)
    found = load_recipe(write(tmp_path, text), ["variables.rate=0.5", "variables.rows=2"])
    assert found.layers[0].sparsity == 0.5 and found.layers[0].scheme == "bcr:2x16" and found.epochs.recover == 2


@pytest.mark.parametrize(
    ("settings", "path", "value"),
    [
        (["method=gradual"], "method", "gradual"),
        (["epochs.recover=5"], "epochs.recover", 5),
        (
            ["admm.rho=[1e-3, 0.1]", "admm.one_sided=true"],
            "admm",
            {"rho": [1e-3, 0.1], "updates": 3, "one_sided": True},
        ),
        (["layers.0.sparsity=0.5"], "layers.0.sparsity", 0.5),
        (["layers.0={match: a, skip: true}"], "layers.0.match", "a"),
        (["layers=[{match: b, skip: true}]"], "layers.0.match", "b"),
        (["distil.weight=0.25"], "distil.weight", 0.25),
        (["layers.0.match=re:a=b"], "layers.0.match", "re:a=b"),
        (["epochs.recover=5", "epochs.recover=6"], "epochs.recover", 6),
    ],
)
def test_settings(settings: list[str], path: str, value: object) -> None:
    at: Any = load_recipe(LEAST, settings).model_dump(mode="json")
    for key in path.split("."):
        at = at[int(key)] if isinstance(at, list) else at[key]
    assert at == value
    at = load_recipe(load_recipe(LEAST), settings).model_dump(mode="json")  # a Recipe takes them as well


@pytest.mark.parametrize(
    ("setting", "facts"),
    [
        ("method", ["KEY=VALUE"]),
        ("=1", ["KEY=VALUE"]),
        ("method=[1", ["not a value"]),
        ("layers.1.skip=true", ["1", "a list of 1", "there is none"]),
        ("layers.first.skip=true", ["first", "a list of 1"]),
        ("layers.-1=1", ["-1"]),
        ("method.x=1", ["x", "text"]),
        ("epochs.recovr=1", ["epochs.recovr", "did you mean recover?"]),
        ("epochs.recover=many", ["epochs.recover", "'many'"]),
    ],
)
def test_settings_that_cant_be(setting: str, facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({"method": "one-shot", **LEAST}, [setting])
    said = str(caught.value)
    assert "\n" not in said and [fact for fact in facts if fact not in said] == [], said


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    text = "method: reweighted\nreweighted: {strength: 1e-3}\nlayers: [{match: a, scheme: filter}]"
    assert load_recipe(write(tmp_path, text)).reweighted.strength == 1e-3


def test_a_recipe_made_in_python() -> None:
    recipe = Recipe(layers=(Rule(match="a", scheme="filter", sparsity=0.5),))
    assert load_recipe(recipe, ["layers.0.sparsity=0.25"]).layers[0].sparsity == 0.25


def test_the_published_schema_is_that_of_the_code() -> None:
    path = Path(__file__).parents[2] / "docs" / "recipe.schema.json"
    assert json.loads(path.read_text()) == recipe_schema(), "run python -m prunus.training.schema"


def test_the_schema_names_every_key() -> None:
    schema = recipe_schema()
    assert set(Recipe.model_fields) | {"variables"} == set(schema["properties"])
    assert schema["additionalProperties"] is False and schema["required"] == ["layers"]


def test_the_docs_have_every_key_of_the_methods() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    parts = {"epochs": Epochs, "admm": Admm, "reweighted": Reweighted, "gradual": Gradual, "distil": Distil}
    for name, part in parts.items():
        for key in part.model_fields:
            assert any(f"`{name}." in row and f".{key}`" in row for row in rows), f"{name}.{key}"
