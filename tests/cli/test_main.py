"""Exit codes and the one line on stderr."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from prunus.cli import app as app_module
from prunus.cli.main import BAD_INPUT, DONE, INTERNAL, INTERRUPTED, NO, run, verdict
from prunus.errors import DisagreementError, ModelError, OutputError


@pytest.mark.parametrize(
    ("error", "code", "facts"),
    [
        (ModelError("a.onnx: not ONNX\nsecond line"), BAD_INPUT, "a.onnx: not ONNX second line"),
        (OutputError("b: No space left"), BAD_INPUT, "b: No space left"),
        (DisagreementError("outputs differ"), NO, "error: outputs differ"),
        (typer.BadParameter("--sparsities 'x'"), BAD_INPUT, "--sparsities 'x'"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (ZeroDivisionError("by zero"), INTERNAL, "ZeroDivisionError: by zero"),
        (FileNotFoundError(2, "No such file or directory", "c.npy"), BAD_INPUT, "c.npy: No such file"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), BAD_INPUT, "prunus[prune]"),
        (ModuleNotFoundError("No module named 'quince'", name="quince"), INTERNAL, "quince"),
        (MemoryError(), BAD_INPUT, "not enough memory"),
    ],
)
def test_verdict(error: BaseException, code: int, facts: str) -> None:
    found, line = verdict(error)
    assert found == code
    assert facts in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["quince"], "quince"),
        (["compile"], "MODEL"),
        (["compile", "a.onnx", "--quince"], "--quince"),
        (["compile", "a.onnx", "--threads", "none"], "none"),
        (["compile", "a.onnx", "--threads", "0"], "0"),
        (["profile", "a.onnx", "--input-shape", "x=1,a"], "x=1,a"),
        (["explore", "a.onnx", "--sparsities", "0.9,x"], "x"),
        (["benchmark", "a.onnx", "--engines", "quince"], "quince"),
        (["compile", "nowhere.onnx"], "nowhere.onnx"),
        (["benchmark", "nowhere.onnx"], "nowhere.onnx"),
        (["run", "nowhere.prunus", "x.npy"], "nowhere.prunus"),
        (["prune", "nowhere.onnx", "-o", "x.onnx", "--sparsity", "0.9"], "nowhere.onnx"),
        (["run", "a.onnx", "x.npy", "-o", "x.txt"], "x.txt"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "-q"] if len(arguments) > 1 else arguments) == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert fact in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("x"), INTERNAL), (KeyboardInterrupt(), INTERRUPTED)])
def test_errors_of_ours_show_no_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(cc: str | None = None) -> None:
        raise error

    monkeypatch.setattr("prunus.benchmark.machine.examine_machine", fails)
    assert run(["doctor", "-q"]) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert printed.count("\n") == 1
    if code == INTERNAL:
        assert "report" in printed
        assert run(["doctor", "-q", "-v"]) == code
        assert "Traceback" in capsys.readouterr().err


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == DONE
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in app_module.VERBS)


def test_python_m_prunus_is_prunus() -> None:
    done = subprocess.run([sys.executable, "-m", "prunus", "quince"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (BAD_INPUT, "", 1)


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m prunus --help | head -c 1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_codes_are_those_of_the_contract() -> None:
    assert (DONE, NO, BAD_INPUT, INTERNAL) == (0, 1, 2, 3)
