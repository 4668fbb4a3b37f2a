"""A training whole, one that is stopped and goes on, and one that can't."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from prunus.errors import CheckpointError, PrunusError, PrunusWarning, RecipeError, TrainingError
from prunus.training import checkpoint
from prunus.training.recipe import load_recipe
from prunus.training.results import Trained
from prunus.training.trainer import Audience, train
from tests.training.toy import samples, write_toy

METHODS: dict[str, dict[str, Any]] = {
    "one-shot": {},
    "gradual": {"method": "gradual", "gradual": {"regrowth": True}, "bcr": "column-row",
                "layers": [{"match": "5", "scheme": "bcr:4x16", "sparsity": 0.75}]},
    "admm": {"method": "admm", "recalibrate": 2, "optimizer": {"name": "sgd", "rate": 0.05, "restart": True}},
    "reweighted": {"method": "reweighted", "distil": {"weight": 0.5}},
    "fisher": {"criterion": "fisher", "collect": 3, "precision": "bf16"},
    "quantise": {"epochs": {"sparsify": 1, "recover": 0, "quantise": 2}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def run(recipe: dict[str, Any], folder: Path, **options: Any) -> Trained:
    return train(load_recipe(recipe), folder, **options)


def test_a_training_learns_prunes_and_writes_what_it_says(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path, dense={"epochs": 4}, recalibrate=2)
    out = tmp_path / "out"
    trained = run(recipe, out)
    scores = trained.scores
    assert list(scores) == ["dense", "pruned", "recovered"]
    assert scores["recovered"].accuracy is not None and scores["recovered"].accuracy > 0.8
    weight = weights(out)["5.weight"]
    assert float((weight == 0).float().mean()) == pytest.approx(0.75, abs=1e-3)
    report = json.loads((out / "report.json").read_text())
    assert report["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert {layer["name"]: layer["scheme"] for layer in report["layers"]}["5"] == "unstructured"
    data = samples(101, 1)
    (answers,) = onnxruntime.InferenceSession(out / "sparse.onnx").run(None, {"x": data["x"]})
    assert (np.asarray(answers).argmax(1) == data["y"]).mean() == pytest.approx(scores["recovered"].accuracy)
    again = load_recipe(YAML(typ="safe").load((out / "recipe.yaml").read_text()))
    assert again == load_recipe(recipe)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["dense"] * 4 + ["sparsify", "recover"]
    assert [row["step"] for row in rows] == [6, 12, 18, 24, 30, 36]
    assert len(list(out.glob("checkpoint-*"))) == checkpoint.KEPT
    assert_same(weights(out), dict(load_file(run(recipe, tmp_path / "other").output / "model.safetensors")))


@pytest.mark.filterwarnings("ignore::prunus.errors.PrunusWarning")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [4, 9, 15])
def test_a_run_that_goes_on_is_the_run_that_was_stopped(
    name: str, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_toy(tmp_path, checkpoint={"steps": 2}, **METHODS[name])
    recipe["model"]["arguments"] = {"drop": 0.1}
    recipe["data"]["augment"] = {"shift": 1, "flip": True}
    whole = run(recipe, tmp_path / "whole")
    monkeypatch.setenv("DIVERGE_AT", str(stop))
    with pytest.raises(TrainingError, match="loss is"):
        run(recipe, tmp_path / "parts")
    monkeypatch.delenv("DIVERGE_AT")
    kept = checkpoint.last_step(tmp_path / "parts")
    assert kept is not None and stop - kept <= 2
    assert_same(weights(run(recipe, tmp_path / "parts").output), weights(whole.output))
    assert (tmp_path / "parts/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    assert (tmp_path / "parts/sparse.onnx").read_bytes() == (tmp_path / "whole/sparse.onnx").read_bytes()


def test_killed_it_loses_one_interval_at_most(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path, checkpoint={"steps": 3})
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    whole = run(recipe, tmp_path / "whole")
    command = [sys.executable, "-m", "prunus", "train", "recipe.yaml", "-o", "parts", "--threads", "1"]
    killed = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "KILL_AT": "11"}, capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.last_step(tmp_path / "parts") == 9
    lines: list[str] = []
    assert_same(
        weights(run(recipe, tmp_path / "parts", audience=Audience(line=lines.append)).output), weights(whole.output)
    )
    assert lines[0] == "going on from step 9 of 18"


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_toy(tmp_path)
    monkeypatch.setenv("DIVERGE_AT", "8")
    with pytest.raises(TrainingError, match=r"step 8: the loss is (nan|inf), the checkpoint of step 6 is kept"):
        run(recipe, tmp_path / "out")
    monkeypatch.setenv("DIVERGE_AT", "1")
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        run(recipe, tmp_path / "other")


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that isn't finite spoils the weights, and the loss is that of the step before it."""
    recipe = write_toy(tmp_path, checkpoint={"steps": 3})
    step, made = torch.optim.AdamW.step, [0]

    def spoil(self: torch.optim.AdamW) -> None:
        step(self)
        made[0] += 1
        if made[0] == 6:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    with pytest.raises(TrainingError, match=r"step 6: \S+ isn't finite, the checkpoint of step 3 is kept"):
        run(recipe, tmp_path / "out")


def test_warns_where_one_shot_leaves_chance(tmp_path: Path) -> None:
    recipe = write_toy(
        tmp_path, dense={"epochs": 4}, layers=[{"match": "re:.", "scheme": "unstructured", "sparsity": 0.99}]
    )
    with pytest.warns(PrunusWarning, match=r"no better than chance.*gradual or admm, or a lower sparsity"):
        run(recipe, tmp_path / "out")
    gentle = write_toy(tmp_path, dense={"epochs": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrunusWarning)
        run(gentle, tmp_path / "gentle")


def test_warns_of_a_network_that_knows_nothing(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path, dense=None)
    with pytest.warns(PrunusWarning, match=r"dense network is no better than chance.*model\.weights"):
        run(recipe, tmp_path / "out")


def test_given_weights_are_not_trained_first(tmp_path: Path) -> None:
    first = run(write_toy(tmp_path), tmp_path / "first")
    recipe = write_toy(tmp_path)
    recipe["model"]["weights"] = str(first.output / "dense.safetensors")
    trained = run(recipe, tmp_path / "second")
    assert trained.scores["dense"] == first.scores["dense"]
    assert len((trained.output / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_checkpoint_of_another_is_refused(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path)
    run(recipe, tmp_path / "out")
    other = write_toy(tmp_path)
    other["model"]["arguments"] = {"width": 12}
    with pytest.raises(
        CheckpointError, match=r"checkpoint-0+18\.safetensors: of another model.*1\.(bias|weight).*sha256.*--fresh"
    ):
        run(other, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"of another recipe: seed is 0, expected 1"):
        run(write_toy(tmp_path, seed=1), tmp_path / "out")
    run(write_toy(tmp_path, seed=1), tmp_path / "out", fresh=True)
    run(write_toy(tmp_path, seed=1, checkpoint={"steps": 5}), tmp_path / "out")  # how often is no part of it


def test_an_onnx_file_is_a_network_with_weights(tmp_path: Path) -> None:
    first = run(write_toy(tmp_path), tmp_path / "first")
    recipe = write_toy(tmp_path, layers=[{"match": "re:weight", "scheme": "unstructured", "sparsity": 0.9}])
    recipe["model"] = {"build": str(first.output / "sparse.onnx")}
    trained = run(recipe, tmp_path / "second")
    assert trained.scores["dense"].accuracy == pytest.approx(first.scores["recovered"].accuracy)
    assert trained.report.sparsity == pytest.approx(0.9, abs=0.01)


def test_filters_that_go_for_real(tmp_path: Path) -> None:
    rules = [{"match": "1", "scheme": "filter", "sparsity": 0.5}, {"match": "5", "scheme": "filter", "sparsity": 0.5}]
    recipe = write_toy(tmp_path, layers=rules, remove={"round_to": 1}, checkpoint={"steps": 4})
    trained = run(recipe, tmp_path / "out")
    shapes = [list(weight.dims) for weight in onnx.load(tmp_path / "out/sparse.onnx").graph.initializer]
    assert [4, 1, 3, 3] in shapes and [8, 4, 3, 3] in shapes
    assert weights(tmp_path / "out")["5.weight"].shape == (16, 8, 3, 3)
    data = samples(101, 1)
    (answers,) = onnxruntime.InferenceSession(tmp_path / "out/sparse.onnx").run(None, {"x": data["x"]})
    right = (np.asarray(answers).argmax(1) == data["y"]).mean()
    assert right == pytest.approx(trained.scores["recovered"].accuracy)


def test_mse_has_no_accuracy(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path, loss="mse", distil={"weight": 0.3})
    for name in ("train", "validation"):
        data = samples(100, 3)
        np.savez(tmp_path / f"{name}.npz", x=data["x"], y=np.eye(4, dtype=np.float32)[data["y"]])
    trained = run(recipe, tmp_path / "out")
    assert trained.scores["recovered"].accuracy is None
    assert trained.scores["recovered"].loss < 0.25


def test_recipes_without_model_or_data_are_refused(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path)
    for key in ("model", "data"):
        with pytest.raises(RecipeError, match=f"{key}: missing"):
            run({k: v for k, v in recipe.items() if k != key}, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": [{"match": "nine", "scheme": "unstructured", "sparsity": 0.5}]}, "'nine' matches no layer"),
        ({"layers": [{"match": "5", "scheme": "pattern:4", "sparsity": 0.5}]}, "0.5"),
        ({"layers": [{"match": "1", "skip": True}, {"match": "re:.", "skip": True}]}, "no layer is left"),
    ],
)
def test_rules_are_tried_before_the_dense_network_is_trained(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    with pytest.raises(PrunusError, match=words):
        run(write_toy(tmp_path, **changes), tmp_path / "out", audience=Audience(line=lines.append))
    assert not lines and not (tmp_path / "out" / "metrics.jsonl").exists()


def test_data_that_the_network_cannot_take(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path)
    recipe["model"]["input"] = [1, 9, 9]
    with pytest.raises(TrainingError, match=r"train\.npz: x is \[1, 8, 8\], expected model\.input \[1, 9, 9\]"):
        run(recipe, tmp_path / "out")
    data = samples(64, 0)
    np.savez(tmp_path / "odd.npz", x=data["x"][:, :, :5], y=data["y"])
    recipe = write_toy(tmp_path)
    del recipe["model"]["input"]
    recipe["data"]["train"] = str(tmp_path / "odd.npz")
    with pytest.raises(TrainingError, match=r"can't take x \[2, 1, 5, 8\] of .*odd\.npz"):
        run(recipe, tmp_path / "out")
    np.savez(tmp_path / "odd.npz", x=data["x"], y=data["y"] + 1)
    with pytest.raises(TrainingError, match=r"y has label 4, and the model tells 4 classes apart"):
        run(recipe, tmp_path / "out")
