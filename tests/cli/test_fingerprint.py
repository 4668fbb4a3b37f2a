"""prunus fingerprint: bad input, what is printed, and going on after an interruption."""

import json
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from prunus.cli.main import BAD_INPUT, DONE, NO, run
from prunus.fingerprint import make as making
from prunus.fingerprint.file import read_fingerprint
from tests.fingerprint.server import Served, serving
from tests.fingerprint.toy import network, write
from tests.runtime.networks import classifier

QUICK = ["--steps", "2", "--draws", "1", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current, with two networks on digits that were never trained, and one that takes something else."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        write(network().eval(), tmp_path / f"model{seed}.onnx")
    onnx.save(classifier("batch"), tmp_path / "other.onnx")
    return tmp_path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def made(*more: str) -> None:
    assert run(["fingerprint", "make", "model0.onnx", "-o", "owner.fp", "-q", *QUICK, *more]) == DONE


def test_says_what_rate_is_assumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["fingerprint", "make", "model0.onnx", "-o", "owner.fp", "--mean", "127", "--std", "128", *QUICK]) == DONE
    )
    assert "a rate of 0.500 (assumed, for there are no null models: --null gives some)" in capsys.readouterr().out
    found = read_fingerprint(folder / "owner.fp")
    assert (found.domain.low, found.domain.high) == ((-127 / 128,), (1.0,))
    assert run(["fingerprint", "verify", "owner.fp", "--suspect", "model1.onnx", "--null", "model1.onnx"]) == NO
    printed = capsys.readouterr().out
    assert "upper 95 % bound of the worst null model" in printed and "not shown" in printed
    assert "98 more would allow 0.01" in printed


def test_a_secret_is_neither_lost_nor_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    before = (folder / "owner.fp").read_bytes()
    assert stat.S_IMODE((folder / "owner.fp").stat().st_mode) == 0o600
    for words in (
        ["make", "model0.onnx", "-o", "owner.fp", "-q", *QUICK],
        ["commit", "owner.fp", "-o", "owner.fp"],
        ["commit", "owner.fp", "-o", "key.pem", "--key", "key.pem"],
    ):
        capsys.readouterr()
        assert run(["fingerprint", *words]) == BAD_INPUT
        assert words[words.index("-o") + 1] in error(capsys)
        assert (folder / "owner.fp").read_bytes() == before
    made("--force")
    assert (folder / "owner.fp").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["make", "none.onnx", "-o", "o.fp"], "none.onnx"),
        (["make", "model0.onnx", "-o", "o.fp", "--kind", "best"], "method 'best': expected one of c, rc, ltrc"),
        (["make", "model0.onnx", "-o", "o.fp", "--eps", "2"], "eps: found 2"),
        (["make", "model0.onnx", "-o", "o.fp", "--alpha", "2"], "alpha: found 2"),
        (["make", "model0.onnx", "-o", "o.fp", "--examples", "2"], "examples: found 2, expected 7 at least"),
        (["make", "model0.onnx", "-o", "o.fp", "--range", "1"], "--range '1': expected LOW,HIGH"),
        (["make", "model0.onnx", "-o", "o.fp", "--null", "other.onnx"], "other.onnx: takes inputs of [3, 8, 8]"),
        (["make", "model0.onnx", "-o", "o.fp", "--images", "none"], "none: no such file or folder"),
        (["make", "model0.onnx", "-o", "no/folder/o.fp"], "no/folder/o.fp"),
        (["verify", "none.fp", "--suspect", "model0.onnx"], "none.fp: No such file"),
        (["verify", "model0.onnx", "--suspect", "model0.onnx"], "model0.onnx: not a fingerprint"),
        (["verify", "owner.fp", "--suspect", "other.onnx"], "takes inputs of [3, 8, 8], expected [1, 8, 8]"),
        (["verify", "owner.fp", "--suspect", "none.onnx"], "none.onnx: No such file"),
        (["verify", "owner.fp", "--suspect", "model0.onnx", "--engine", "tvm"], "engine 'tvm'"),
        (["verify", "owner.fp", "--suspect", "model0.onnx", "--alpha", "2"], "--alpha 2: expected above 0"),
        (["verify", "owner.fp", "--suspect", "model0.onnx", "--alpha", "1e-40"], "examples: found 100, expected"),
        (["verify", "owner.fp", "--suspect", "model0.onnx", "--seen", "2026-01-01"], "--seen needs --commitment"),
        (["verify", "owner.fp", "--suspect", "model0.onnx", "--commitment", "none.json"], "none.json: No such file"),
        (["commit", "none.fp", "-o", "c.json"], "none.fp: No such file"),
        (["verify", "owner.fp"], "--suspect"),
    ],
)
def test_refused(words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    before = sorted(folder.iterdir())
    assert run(["fingerprint", *words, "-q", *(QUICK if words[0] == "make" else [])]) == BAD_INPUT
    assert said in error(capsys)
    assert [path for path in sorted(folder.iterdir()) if path.suffix != ".part"] == before


def test_too_few_examples_for_a_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made("--examples", "9")
    assert "warning: owner.fp: at a null rate of 0.500 not even 9 matches of 9" in error(capsys)
    assert run(["fingerprint", "verify", "owner.fp", "--suspect", "model0.onnx", "-q"]) == BAD_INPUT
    assert "examples: found 9, expected 10 at least: at a null rate of 0.500" in error(capsys)


def test_another_label_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    torch.manual_seed(0)
    seven = torch.nn.Sequential(*list(network())[:-1], torch.nn.Linear(512, 7)).eval()
    write(seven, folder / "seven.onnx")
    assert run(["fingerprint", "verify", "owner.fp", "--suspect", "seven.onnx", "-q"]) == BAD_INPUT
    assert "seven.onnx: tells 7 classes apart, expected 10" in error(capsys)


def test_an_altered_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    path = folder / "owner.fp"
    path.write_bytes(path.read_bytes().replace(b'"alpha":0.001', b'"alpha":0.100'))
    assert run(["fingerprint", "verify", "owner.fp", "--suspect", "model0.onnx", "-q"]) == BAD_INPUT
    assert "owner.fp: alpha: was altered" in error(capsys)


def test_a_commitment_to_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made()
    assert run(["fingerprint", "commit", "owner.fp", "-o", "c.json"]) == DONE
    assert json.loads(Path("c.json").read_text())["hash"] in capsys.readouterr().out
    made("--force")
    words = ["fingerprint", "verify", "owner.fp", "--suspect", "model0.onnx", "--commitment", "c.json", "-q"]
    assert run(words) == BAD_INPUT
    assert "c.json: hash: found" in error(capsys)


def test_an_endpoint_that_fails_midway(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    made()
    answers = read_fingerprint(folder / "owner.fp").targets
    asked = iter(answers.reshape(10, 10))
    with serving(Served(lambda x: next(asked), fails=lambda request: 4 <= request < 7)) as served:
        words = ["fingerprint", "verify", "owner.fp", "--suspect", served.url, "--json", "v.json"]
        assert run([*words, "-q"]) == BAD_INPUT
        assert "3 failures: status 503; 40 of 100 examples answered, kept in owner.fp." in error(capsys)
        assert run(words) == DONE
    evidence = json.loads(Path("v.json").read_text())["evidence"][0]
    assert (evidence["matches"], evidence["failures"]) == (100, 3)
    assert not list(folder.glob("*.answers"))


def test_goes_on_after_an_interruption(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, generate = [], making.generate

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "generate", interrupted)
    words = ["fingerprint", "make", "model0.onnx", "-o", "owner.fp", "--part", "30", *QUICK]
    assert run(words) == 130
    assert not (folder / "owner.fp").exists()
    capsys.readouterr()
    assert run(words) == DONE
    assert "owner.fp.part: going on with 60 of 100 examples" in capsys.readouterr().err
    assert len(calls) == 5 and len(read_fingerprint(folder / "owner.fp").examples) == 100
    (folder / "owner.fp.part").write_bytes(b"PK")
    assert run([*words, "-q", "--force"]) == BAD_INPUT
    assert "owner.fp.part: examples begun that can't be read" in error(capsys)


def test_from_pictures(folder: Path) -> None:
    np.savez("x.npz", x=np.random.default_rng(0).random((120, 1, 8, 8), np.float32))
    made("--images", "x.npz", "--kind", "c")
    assert read_fingerprint(folder / "owner.fp").origin == "images"
