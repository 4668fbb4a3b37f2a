"""prunus search: what it prints and refuses, and how options become a recipe."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus.cli.main import BAD_INPUT, DONE, run
from prunus.search.recipe import load_search_recipe
from prunus.training.export import export_onnx
from tests.search.toy import write_search


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current, with a recipe without a budget."""
    monkeypatch.chdir(tmp_path)
    recipe = write_search(tmp_path)
    del recipe["budget"]
    Path("search.yaml").write_text(json.dumps(recipe))
    return tmp_path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_prints_widths_costs_and_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "search.yaml", "--macs", "60%", "--threads", "1", "--json", "r.json"]) == DONE
    printed = capsys.readouterr()
    row = next(line for line in printed.out.splitlines() if line.split()[:2] == ["8", "4"])
    assert "the network's output" in row
    assert "latency: " in printed.out and " ms, " in printed.out
    assert "found.onnx: " in printed.out and "budget 60.00%" in printed.out
    assert "epoch 2 of 4, search: " in printed.err and ", cost " in printed.err
    shown = json.loads((folder / "r.json").read_text())
    assert shown["output"] == "found" and shown["cost"] <= 0.6
    assert run(["search", "search.yaml", "--macs", "0.6", "-q", "--threads", "1"]) == DONE
    assert load_search_recipe(folder / "found/recipe.yaml").budget.macs == 0.6


def test_an_onnx_file_with_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    for groups in (1, 2):
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=groups), nn.ReLU(), nn.Flatten(),
                            nn.Linear(128, 4))  # fmt: skip
        export_onnx(net, f"model{groups}.onnx", torch.zeros(2, 1, 8, 8))
    data = ["--data", "train.npz", "--validation", "validation.npz", "--threads", "1", "-q"]
    short = ["--set", "epochs.search=1", "--set", "epochs.finetune=1", "--method", "uniform"]
    assert run(["search", "model1.onnx", *data, *short, "--weights", "75%", "--json", "r.json"]) == DONE
    before, after = json.loads((folder / "r.json").read_text())["weights"]
    assert 0.5 * before < after <= 0.75 * before
    capsys.readouterr()
    assert run(["search", "model2.onnx", *data, *short, "--weights", "75%", "-o", "other"]) == BAD_INPUT
    assert "conv2d_1 (conv2d): grouped" in error(capsys)
    assert run(["search", "model1.onnx", "--macs", "50%", "-q"]) == BAD_INPUT
    assert "model1.onnx: --data and --validation missing" in error(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search.yaml"], "search.yaml: budget: missing"),
        (["search.yaml", "--macs", "half"], "--macs 'half': expected 50% or 0.5"),
        (["search.yaml", "--macs", "50"], "--macs '50': expected a share above 0 and up to 1, as 50% or 0.5"),
        (["search.yaml", "--weights", "0%"], "--weights '0%': expected a share above 0 and up to 1, as 50% or 0.5"),
        (["search.yaml", "--macs", "nan"], "--macs 'nan': expected a share"),
        (["search.yaml", "--latency", "0ms"], "--latency '0ms': expected milliseconds above 0, as 6ms"),
        (["search.yaml", "--latency", "6s"], "--latency '6s': expected 6ms"),
        (["search.yaml", "--latency", "soon"], "--latency 'soon': expected 6ms"),
        (["search.yaml", "--macs", "50%", "--latency", "6ms"], "found macs and latency, expected one of"),
        (["search.yaml", "--macs", "50%", "--method", "luck"], "method: found 'luck'"),
        (["search.yaml", "--macs", "50%", "--data", "x.npz"], "go with an ONNX file"),
        (["none.yaml", "--macs", "50%"], "none.yaml: No such file"),
        (["none.onnx", "--macs", "50%", "--data", "train.npz", "--validation", "train.npz"], "none.onnx"),
        (["search.yaml", "--macs", "0.1%"], "can't be reached, expected at least"),
    ],
)
def test_refused(arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *arguments, "-q"]) == BAD_INPUT
    assert said in error(capsys)


def test_several_processes_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["search", "search.yaml", "--macs", "50%"]) == BAD_INPUT
    assert "started as 2 processes, expected one" in error(capsys)
    assert not Path("found").exists()
