"""prunus train: what it prints, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.cli.main import BAD_INPUT, DONE, run
from prunus.training.progress import TrainingStep
from prunus.training.recipe import load_recipe, recipe_schema
from tests.training.toy import write_toy

OLD = """
pruning_modifiers:
  - !GMPruningModifier
    params: ["5.weight"]
    init_sparsity: 0.0
    final_sparsity: 0.75
    start_epoch: 0.0
    end_epoch: 1.0
    update_frequency: 0.5
  - !DistillationModifier
    hardness: 0.5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current, with a recipe."""
    monkeypatch.chdir(tmp_path)
    save(write_toy(tmp_path))
    return tmp_path


def save(recipe: dict[str, Any]) -> None:
    Path("recipe.yaml").write_text(json.dumps(recipe))


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_prints_layers_and_accuracies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert run(["train", "recipe.yaml", "--set", "epochs.recover=2", "--threads", "1", "--json", "r.json"]) == DONE
    torch.set_num_threads(threads)
    printed = capsys.readouterr()
    row = next(line for line in printed.out.splitlines() if "16x8x3x3" in line)
    assert row.split() == ["5", "16x8x3x3", "unstructured", "0.7500"]
    assert printed.out.index("dense ") < printed.out.index("pruned ") < printed.out.index("recovered ")
    assert "epoch 4 of 4, recover" in printed.err
    shown = json.loads((folder / "r.json").read_text())
    assert shown["output"] == "trained"
    assert shown["scores"].keys() == {"dense", "pruned", "recovered"}
    names = {path.name for path in Path("trained").iterdir()}
    assert {"sparse.onnx", "model.safetensors", "report.json", "recipe.yaml", "metrics.jsonl"} <= names
    assert load_recipe(Path("trained/recipe.yaml")).epochs.recover == 2
    assert run(["train", "recipe.yaml", "-q", "--set", "epochs.recover=2"]) == DONE
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_goes_on_or_starts_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "recipe.yaml"]) == DONE
    capsys.readouterr()
    assert run(["train", "recipe.yaml", "--set", "seed=1", "-q"]) == BAD_INPUT
    assert "of another recipe: seed is 0, expected 1; --fresh starts again" in error(capsys)
    assert run(["train", "recipe.yaml"]) == DONE
    assert "going on from step 18 of 18" in capsys.readouterr().err
    assert run(["train", "recipe.yaml", "--set", "seed=1", "--fresh"]) == DONE
    assert "going on" not in capsys.readouterr().err


def test_a_plan_takes_the_place_of_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.yaml").write_text("layers:\n  - {match: '8', scheme: 'channel', sparsity: 0.5}  # measured\n")
    assert run(["train", "recipe.yaml", "--plan", "plan.yaml", "--json", "r.json"]) == DONE
    layers = {layer["name"]: layer for layer in json.loads(Path("r.json").read_text())["layers"]}
    assert (layers["8"]["scheme"], layers["8"]["sparsity"], layers["5"]["scheme"]) == ("channel", 0.5, None)
    capsys.readouterr()
    Path("plan.yaml").write_text("layer:\n  - {match: '8'}\n")
    assert run(["train", "recipe.yaml", "--plan", "plan.yaml"]) == BAD_INPUT
    assert "plan.yaml: layer" in error(capsys)


def test_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--schema"]) == DONE
    schema = json.loads(capsys.readouterr().out)
    assert schema == recipe_schema()
    assert {"model", "data", "optimizer", "layers", "checkpoint"} <= schema["properties"].keys()


def test_converts_a_recipe_of_sparseml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.yaml").write_text(OLD)
    assert run(["train", "old.yaml", "--write-recipe", "new.yaml"]) == DONE
    assert "old.yaml: left out: DistillationModifier: give distil instead" in capsys.readouterr().err
    assert load_recipe(Path("new.yaml")).gradual.updates == 2
    assert not Path("trained").exists()
    assert run(["train", "old.yaml", "-q"]) == BAD_INPUT
    assert "old.yaml: model: missing" in error(capsys)
    more = [f"{key}={json.dumps(value)}" for key, value in write_toy(folder).items() if key in ("model", "data")]
    assert (
        run(
            ["train", "old.yaml", "-q", *(word for text in more for word in ("--set", text)), "--set", "dense.epochs=2"]
        )
        == DONE
    )
    assert json.loads(Path("trained/report.json").read_text())["sparsity"] == 0.75


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "RECIPE missing"),
        (["train", "none.yaml"], "none.yaml: No such file"),
        (["train", "recipe.yaml", "--set", "optimizer.rates=1"], "optimizer.rates: unknown key; did you mean rate?"),
        (["train", "recipe.yaml", "--set", "model.build=net.py"], "expected package.module:function"),
        (["train", "recipe.yaml", "--set", "model.build=net.py:fails"], "ZeroDivisionError"),
        (["train", "recipe.yaml", "--set", "data.train=none.npz"], "none.npz: No such file"),
        (["train", "recipe.yaml", "--set", "data.std=0"], "std: found 0"),
        (["train", "recipe.yaml", "--set", "model.weights=none.pt"], "none.pt: no such file"),
        (["train", "recipe.yaml", "--set", 'layers=[{"match": "nine", "scheme": "filter", "sparsity": 0.5}]'], "nine"),
        (["train", "recipe.yaml", "-o", "recipe.yaml/out"], "recipe.yaml/out: can't be made"),
        (["train", "recipe.yaml", "--set", "optimizer.rate=1e30"], "the loss is"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "-q"]) == BAD_INPUT
    said = error(capsys)
    assert said.startswith("error: ") and words in said


def test_only_the_first_process_prints(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run(["train", "recipe.yaml", "--set", "data.train=none.npz"]) == BAD_INPUT
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_bar_moves_with_the_steps() -> None:
    from io import StringIO

    from rich.console import Console

    from prunus.cli.live import watching

    stream = StringIO()
    with watching("train", Console(file=stream, force_terminal=True, width=120)) as show:
        show(TrainingStep("recover", 30, 40, 0.5))
    assert "train: recover, loss 0.5000" in stream.getvalue()
    assert "step 30 of 40" in stream.getvalue()
