"""Rows are kept one by one, skipped where they are known, and the engines' list is the benchmark's."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from bench.tables import speed

from bench import child, engines, store, tasks
from prunus.benchmark.engines import ENGINES


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"only": [""], "time": 2.0, "quick": False, "again": False, "list": False, **given})


def test_rows_are_measured_once_per_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "stamp", lambda: {"commit": "abc"})
    results, calls = tmp_path / "r.jsonl", []

    def task(key: str, **row: Any) -> tasks.Task:
        return tasks.Task(key, {"threads": 1}, lambda time_s: calls.append((key, time_s)) or row)  # type: ignore[func-returns-value]

    both = [task("one", ms={"prunus": 1.0}), task("two", failure="crash")]
    assert tasks.run(both, results, options(quick=True)) == 1 and not results.exists()
    assert tasks.run(both, results, options(only=["on"])) == 0
    assert store.read(results) == [
        {"commit": "abc", "key": "one", "quick": False, "threads": 1, "ms": {"prunus": 1.0}}
    ]  # fmt: skip
    assert tasks.run(both, results, options()) == 1, "only what is missing, and failures again"
    assert tasks.run(both, results, options(list=True)) == 0
    assert calls == [("one", 0.0), ("two", 0.0), ("one", 2.0), ("two", 2.0)]
    assert tasks.run(both, results, options(again=True)) == 1 and len(calls) == 6


def test_children_say_their_row_or_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quince.py").write_text(
        "import sys\nfrom bench import child\n"
        "def row():\n"
        "    if sys.argv[2] == 'lacks': raise child.NotSupported('no bf16')\n"
        "    if sys.argv[2] == 'falls': raise SystemExit('fell')\n"
        "    return {'value': sys.argv[1:]}\n"
        "child.print_row(row)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{store.ROOT}", prepend=":")
    assert child.run_child("quince", "x") == {"value": ["--child", "x"]}
    assert child.run_child("quince", "lacks") == {"unsupported": "no bf16"}
    assert child.run_child("quince", "falls") == {"failure": "fell"}


def test_every_engine_takes_part() -> None:
    assert {"prunus", *engines.PEERS} == set(ENGINES)
    assert {task.key for task in engines.tasks()} == set(engines.cases())


def result(key: str, cpu: str, **more: Any) -> store.Row:
    machine = {"cpu": cpu, "target": "t", "cores": 2, "l1": 1 << 15, "l2": 0, "l3": 0}
    return {
        "commit": "abc", "date": "2026-01-02T03:04:05+00:00", "machine": machine, "packages": {}, "key": key,
        "quick": False, **more,
    }  # fmt: skip


def test_engines_table_has_a_column_per_row_of_the_newest_complete_machine() -> None:
    keys = list(engines.cases())

    def rows(cpu: str, ms: float) -> list[store.Row]:
        ratios = {"mnn": [1.5, 2.0, 2.5]}
        more = {"ms": {"prunus": ms, "mnn": 2 * ms}, "ratios": ratios, "left_out": {"tvm": "tvm: not installed"}}
        return [result(key, cpu, **more) for key in keys]

    table = speed.engines_table(rows("old", 4.0) + rows("new", 3.0))
    assert table.splitlines()[0].count("|") == 2 + len(keys) and "1 thread |" in table
    assert "| prunus | **3.0 ms** |" in table and "| mnn | 6.0 ms, **2.00** (1.50 to 2.50) |" in table
    assert table.count("Left out: tvm: not installed.") == 1 and "old" not in table and "litert" not in table
    assert "4.0 ms" in speed.engines_table(rows("old", 4.0) + rows("new", 3.0)[1:])
    failed = speed.engines_table([result(keys[0], "new", failure="crash")])
    assert f"Failed: {keys[0]}: crash." in failed
    assert "Not measured yet" in speed.engines_table([])


def test_accuracy_table_has_the_mean_of_trainings() -> None:
    rows: list[store.Row] = [
        {"network": "n", "precision": "int8", "method": "mse", "images": 9, "agreement": a, "relative_error": 0.5}
        for a in (0.25, 0.75)
    ]
    rows += [
        {"network": "m", "precision": "int8", "method": "mse", "images": 7, "seed": seed, "accuracy_fp32": 0.9,
         "points_lost": lost} for seed, lost in ((0, 8.0), (0, 1.0), (1, 2.0))
    ]  # fmt: skip
    table = speed.accuracy_table(rows)
    assert "| n | int8 (mse) | 9 | 75.0 % | 0.500 | - |" in table, "the newest counts"
    assert "| m | int8 (mse) | 7 | - | - | 1.50 of 90.00 |" in table
