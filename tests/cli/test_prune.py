"""prunus prune with calibration data."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from prunus.cli.main import BAD_INPUT, DONE, run
from tests.runtime.networks import classifier

PRUNE = ["prune", "model.onnx", "-o", "s.onnx", "--scheme", "block-column:4x8", "--sparsity", "0.5"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and inputs for it, and current."""
    onnx.save(classifier("batch"), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((12, 3, 8, 8)).astype(np.float32), labels=np.arange(12))
    (tmp_path / "images").mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "data",
    [
        ["--calibration", "x.npz"],
        ["--calibration", "x.npz", "--distil", "1"],
        ["--calibration", "images", "--mean", "127", "--std", "64", "--bgr"],
    ],
)
def test_calibration(data: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PRUNE, *data, "--json", "shown.json"]) == DONE, capsys.readouterr().err
    layers = json.loads((folder / "shown.json").read_text())["layers"]
    rebuilt = [layer for layer in layers if "error" in layer]
    assert rebuilt
    assert all(layer["error"] <= layer["magnitude_error"] for layer in rebuilt)
    assert all(layer["scheme"] == "block-column:4x8" for layer in rebuilt)
    assert "magnitude" in capsys.readouterr().out
    described = {p.key: p.value for p in onnx.load(folder / "s.onnx").metadata_props}
    assert described["prunus.scheme"] == "block-column:4x8"


def test_distillation_needs_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PRUNE, "--distil", "2"]) == BAD_INPUT
    assert "--calibration" in capsys.readouterr().err
    assert not (folder / "s.onnx").exists()


def test_bad_data_leaves_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "bad.npy", np.full((2, 3, 8, 8), np.nan, np.float32))
    for path, said in (("bad.npy", "NaN"), ("nowhere", "no such file")):
        assert run([*PRUNE, "--calibration", path]) == BAD_INPUT
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not (folder / "s.onnx").exists()
