"""Measured times are kept and used again where they hold, by several processes, whatever becomes of the file."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prunus.compiler import tune as tuning
from prunus.compiler.choice import Choice
from prunus.compiler.compile import compile
from prunus.compiler.latency import Latencies, Place, as_json
from prunus.errors import PrunusWarning
from tests.runtime.networks import NETWORKS

HERE = Place("this CPU", "library", 1)
FIRST = Choice("rows", (4, 1), 3, 60000, 64, False)
SECOND = replace(FIRST, tile=2)


def test_kept_times_are_found_where_they_hold(tmp_path: Path) -> None:
    kept = Latencies(tmp_path / "new" / "latency.sqlite", HERE)
    kept.add("conv", 0.02, {FIRST: 1e-3, SECOND: 2e-3})
    kept.add("conv", 0.5, {SECOND: 3e-3})
    assert kept.find("conv", 0.02) == {as_json(FIRST): 1e-3, as_json(SECOND): 3e-3}
    assert kept.find("conv", 0.5) == {as_json(SECOND): 3e-3}
    assert kept.find("other", 0.0) == {}
    for place in (Place("other", "library", 1), Place("this CPU", "other", 1), Place("this CPU", "library", 2)):
        assert Latencies(kept.path, place).find("conv", 0.0) == {}


def test_a_second_compilation_measures_nothing(monkeypatch: pytest.MonkeyPatch, measured_times: Path) -> None:
    model = NETWORKS["residual"]()
    first = compile(model, threads=1).explain()
    assert measured_times.exists()

    def measure(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(tuning.Tuner, "_measure", measure)
    again = compile(model, threads=1).explain()
    assert [row.kernel for row in again] == [row.kernel for row in first]
    assert [row.refused for row in again] == [row.refused for row in first]
    assert any("measured before" in row.reason for row in again)
    with pytest.raises(AssertionError, match="measured again"):
        compile(model, threads=1, tune="full")


def test_other_cpus_times_are_named_and_ignored(tmp_path: Path) -> None:
    path = tmp_path / "latency.sqlite"
    Latencies(path, Place("a Cray", "library", 1)).add("conv", 0.02, {FIRST: 1e-3})
    with pytest.warns(PrunusWarning, match=r"measured on a Cray are ignored: this is this CPU"):
        Latencies(path, HERE).say_strangers()
    assert Latencies(path, HERE).find("conv", 0.02) == {}


@pytest.mark.parametrize("damage", [b"not a database at all" * 99, b"SQLite format 3\0" + b"\7" * 4096])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: bytes) -> None:
    kept = Latencies(tmp_path / "latency.sqlite", HERE)
    kept.path.write_bytes(damage)
    with pytest.warns(PrunusWarning, match="moved to latency.sqlite.damaged"):
        kept.add("conv", 0.02, {FIRST: 1e-3})
    assert kept.find("conv", 0.02) == {as_json(FIRST): 1e-3}
    assert (tmp_path / "latency.sqlite.damaged").read_bytes() == damage


def test_a_table_of_another_shape_is_moved_aside(tmp_path: Path) -> None:
    kept = Latencies(tmp_path / "latency.sqlite", HERE)
    with sqlite3.connect(kept.path) as db:
        db.execute("create table latency (machine text)")
    with pytest.warns(PrunusWarning, match="moved to latency.sqlite.damaged"):
        kept.add("conv", 0.02, {FIRST: 1e-3})
    assert kept.find("conv", 0.02) == {as_json(FIRST): 1e-3}


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = Latencies(tmp_path / "file" / "latency.sqlite", HERE)
    with pytest.warns(PrunusWarning, match="aren't kept"):
        kept.add("conv", 0.02, {FIRST: 1e-3})
    with pytest.warns(PrunusWarning, match="aren't kept"):
        assert kept.find("conv", 0.02) == {}


WRITER = """
import sys
from pathlib import Path
from prunus.compiler.choice import Choice
from prunus.compiler.latency import Latencies, Place
kept = Latencies(Path(sys.argv[1]), Place("this CPU", "library", 1))
for i in range(40):
    kept.add(f"{sys.argv[2]} {i}", 0.02, {Choice("rows", (4, 1), 3, 60000, 64, False): i / 1000})
    print(i, flush=True)
"""


def test_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "latency.sqlite"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], env=os.environ, stdout=subprocess.PIPE) for name in "abc"]
    assert writers[2].stdout is not None
    writers[2].stdout.readline()
    writers[2].kill()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers[:2]] == [0, 0]
    kept = Latencies(path, HERE)
    for name in "ab":
        assert [kept.find(f"{name} {i}", 0.02) for i in range(40)] == [{as_json(FIRST): i / 1000} for i in range(40)]
    assert kept.find("c 0", 0.02) == {as_json(FIRST): 0.0}
