"""Tables, JSON and progress."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from prunus.cli.output import Printer, plain
from prunus.compiler.watch import Tuning
from prunus.errors import OutputError


@dataclass(frozen=True)
class Thing:
    name: str
    values: tuple[float, ...]


def test_plain() -> None:
    data = plain({"a": Thing("x", (1.5, float("nan"), float("inf"))), 1: np.float32(2), "p": Path("q"), "s": {2, 1}})
    assert data == {"a": {"name": "x", "values": [1.5, None, None]}, "1": 2.0, "p": "q", "s": [1, 2]}
    json.dumps(data, allow_nan=False)


def test_table_is_not_cut_off_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = "layer/" * 20
    Printer().table(("name", "ms"), [(long, "1.5"), ("[bold]b[/bold]", "10.25")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(long in line for line in lines)
    assert any("[bold]b[/bold]" in line for line in lines)
    assert {len(line) for line in lines if "1.5" in line or "10.25" in line} == {
        len(next(x for x in lines if "1.5" in x))
    }


def test_json_file_that_cant_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing"):
        Printer(json=str(tmp_path / "missing" / "a.json")).write_json({})


def test_progress_goes_to_stderr_as_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Printer().progress("work") as step:
        step("done in a moment")
        monkeypatch.setattr("time.monotonic", lambda clock=time.monotonic: clock() + 6)
        step("one")
        step("at once another")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "work: one\n")
    with Printer().progress("work") as step:
        monkeypatch.setattr("time.monotonic", lambda clock=time.monotonic: clock() + 6)
        step(Tuning("conv1", 1, 9, 4, 3, "rows 1x1", 0.25, 2.0))
    line = "work: layer 2 of 9, conv1: rows 1x1 0.250 ms, 2.00 times as fast as the first of 3; measuring 4 more"
    assert capsys.readouterr().err == line + "\n"
    with Printer(quiet=True).progress("work") as step:
        step("one")
    assert capsys.readouterr().err == ""
