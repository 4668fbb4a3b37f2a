"""Converters of other engines' files that don't do their work."""

import sys
from pathlib import Path

import pytest

from prunus.benchmark import peers
from prunus.benchmark.refusals import EngineRefusal


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import time; time.sleep(60)", "took longer than 0.5 s to convert it"),
        ("print('no such operator')", "made no file: no such operator"),
    ],
)
def test_a_converter_that_fails_is_said_in_a_line(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CONVERT_S", 0.5 if "sleep" in script else 60.0)
    with pytest.raises(EngineRefusal) as refusal:
        peers._convert("mnn", tmp_path / "net.onnx", [sys.executable, "-c", script], tmp_path, "net.mnn")
    text = str(refusal.value)
    assert text.startswith("mnn: net.onnx: ") and text.endswith(said)
    assert str(tmp_path) not in text and str(Path(sys.executable).parent) not in text
