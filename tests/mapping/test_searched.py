"""`prunus map` by search, on a small network, with times by a formula: measured ones leave other options each time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunus.cli.main import BAD_INPUT, DONE, INTERRUPTED, run
from prunus.mapping import evaluate, options
from prunus.mapping.search import Mapping
from prunus.training.export import export_onnx
from prunus.training.plan import read_plan
from tests.mapping.fakes import sources
from tests.training import toy

SHORT = ["--speedup", "1.3", "--trials", "12", "--steps", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx and train.npz."""
    folder = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 4),
    )
    export_onnx(model.eval(), folder / "model.onnx", torch.zeros(2, 1, 8, 8))
    np.savez(folder / "train.npz", **toy.samples(150, 0))
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model.onnx", "train.npz"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    monkeypatch.setattr(options, "sources_of", lambda network, *_: sources(network.model))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["search", "tpe", "nsga2"])
def test_a_search_that_was_interrupted_goes_on(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["map", "model.onnx", "--method", method, "--data", "train.npz", *SHORT]
    evaluated: list[Mapping] = []
    real = evaluate.Evaluator._evaluate

    def watched(self: evaluate.Evaluator, mapping: Mapping) -> float:
        if len(evaluated) == 3:
            evaluated.append(mapping)
            raise KeyboardInterrupt
        evaluated.append(mapping)
        return real(self, mapping)

    monkeypatch.setattr(evaluate.Evaluator, "_evaluate", watched)
    assert run(words) == INTERRUPTED
    assert not (folder / "plan.yaml").exists()
    assert run([*words, "--json", "shown.json"]) == DONE, capsys.readouterr().err
    kept = (folder / "plan.search" / "accuracies.jsonl").read_text().splitlines()
    assert len(kept) == len(evaluated) - 1  # what was cut off was the only one to be evaluated twice
    shown = json.loads((folder / "shown.json").read_text())
    assert shown["predicted_ms"] <= shown["dense_ms"] / 1.3 * 1.001
    assert shown["tried"]["samples"] == 50
    assert len(read_plan(folder / "plan.yaml").layers) == 3
    n_evaluated = len(evaluated)
    assert run(words) == DONE
    assert len(evaluated) == n_evaluated
    printed = capsys.readouterr().out
    assert "after a quick retraining, dense" in printed
    assert f"{method}: " in printed


@pytest.mark.slow
def test_what_a_search_cant_start_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("odd.npz", x=np.zeros((9, 1, 4, 4), np.float32), y=np.zeros(9, np.int64))
    np.savez("many.npz", x=np.zeros((9, 1, 8, 8), np.float32), y=np.arange(9))
    for words, said in (
        (["--method", "search"], "--data missing, expected an npz"),
        (["--method", "quince"], "expected one of rules, exact, search, tpe, nsga2"),
        (["--method", "tpe", "--data", "none.npz"], "none.npz: No such file"),
        (["--method", "tpe", "--data", "odd.npz"], "odd.npz: x is [1, 4, 4], expected model.input [1, 8, 8]"),
        (["--method", "tpe", "--data", "many.npz"], "many.npz: y has label 8, and the model tells 4 classes apart"),
        (["--method", "tpe", "--data", "train.npz", "--storage", "sqlite:////nowhere/t.db"], "unable to open"),
        (
            ["--method", "search", "--data", "train.npz", "--storage", "sqlite:///t.db"],
            "expected --method tpe or nsga2",
        ),
    ):
        assert run(["map", "model.onnx", *words, *SHORT]) == BAD_INPUT
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert said in line
    assert run(["map", "model.onnx", "--method", "tpe", "--data", "train.npz", "--sparsity", "0.5"]) == BAD_INPUT
    assert "--sparsity with --method tpe" in capsys.readouterr().err
    assert not (folder / "plan.yaml").exists()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = self.gru(x)[0][:, -1]
        return last


def test_recurrent_layers_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_onnx(Recurrent().eval(), folder / "gru.onnx", torch.zeros(2, 4, 8))
    words = ["map", "gru.onnx", "--method", "search", "--data", "train.npz", "--input-shape", "x=1,4,8", *SHORT]
    assert run(words) == BAD_INPUT
    assert "/gru/GRU: GRU of a file isn't trained by a search" in capsys.readouterr().err
