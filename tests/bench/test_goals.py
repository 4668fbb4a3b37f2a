"""Marks, table and plot of the goals from made-up results; one tiny row through the whole measurement."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from bench.goals import GOALS, Goal, best, marks, table

from bench import goals


def row(key: str, **changed: Any) -> dict[str, Any]:
    ratios = {engine: [6.9, 7.1, 7.3] for engine in goals.FP32}
    found = {
        "key": key, "threads": 1, "compile_s": 4.0, "error": 1e-6, "notes": [], "of_peak": 0.85, "csr_over_prunus": 6.0,
        "ms": {"prunus": 10.0} | dict.fromkeys(goals.FP32, 71.0), "ratios": ratios, "date": "2026-01-01",
        "cpu": {"name": "cpu", "target": "t"}, "commit": "abc", "artefact_bytes": 1,
    }  # fmt: skip
    return found | changed


def test_every_goal_has_a_name_of_its_own_and_peers_that_exist() -> None:
    from prunus.benchmark.engines import ENGINES

    assert len({goal.key for goal in GOALS}) == len(GOALS)
    assert all(peer in ENGINES for goal in GOALS for _, peers, _ in goal.targets for peer in peers)


def test_marks() -> None:
    good = row(GOALS[0].key)
    assert all(met for _, met in marks(good)) and len(marks(good)) == 5
    slow = row(GOALS[0].key, ratios={"onnxruntime": [8, 9, 10], "openvino": [5, 6, 7]})
    assert marks(slow)[0][1] is False, "the best peer counts, not the first"
    assert marks(row(GOALS[0].key, error=1e-3))[-1][1] is False
    assert marks(row(GOALS[0].key, of_peak=0.5))[1][1] is False
    assert marks(row(GOALS[0].key, ratios={}))[0][1] is None


def test_a_precision_that_fell_back_is_no_pass() -> None:
    goal = next(goal for goal in GOALS if goal.precision == "bf16")
    raced = {"openvino-bf16": [8.0, 9.0, 10.0]}
    assert marks(row(goal.key, ratios=raced))[0][1] is True
    fallen = row(goal.key, ratios=raced, notes=["precision 'bf16': layer 'a': no instructions; computed in fp32"])
    assert marks(fallen)[0][1] is False


def test_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest row of each name stands; drawing twice gives the same bytes."""
    results, readme = tmp_path / "goals.jsonl", tmp_path / "README.md"
    rows = [row(GOALS[0].key, compile_s=99.0), row(GOALS[1].key), row(GOALS[0].key)]
    results.write_text("".join(json.dumps(r) + "\n" for r in rows))
    readme.write_text("before\n<!-- table:goals -->\nold\n<!-- /table -->\nafter\n")
    for name, path in (("RESULTS", results), ("README", readme), ("PLOT", tmp_path / "goals.svg")):
        monkeypatch.setattr(goals, name, path)
    goals.report()
    first = (tmp_path / "goals.svg").read_bytes()
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count(GOALS[0].key) == 1 and "99.0" not in text and "**pass** 7.10x the best" in text
    goals.report()
    assert (tmp_path / "goals.svg").read_bytes() == first and readme.read_text() == text
    assert "short" in table([row(GOALS[0].key, of_peak=0.1)])


def test_a_tiny_network_through_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.runtime.networks import Net

    def tiny() -> Any:
        net = Net({"x": (1, 3, 12, 12)})
        inner = net.add("Relu", net.add("Conv", "x", net.weight(16, 3, 3, 3, zeros=0), pads=[1] * 4))
        return net.model(net.add("Relu", net.add("Conv", inner, net.weight(16, 16, 3, 3, zeros=0), pads=[1] * 4)))

    monkeypatch.setitem(goals.ZOO, "tiny", tiny)
    for precision in ("fp32", "int8"):
        goal = Goal("tiny", "punched:8x4", 0.5, best(1.0, "onnxruntime"), precision)
        monkeypatch.setattr(goals, "GOALS", (goal,))
        found = goals.measure(goal, 1, 0.01)
        assert found["error"] < goals.BOUNDS[precision] and found["ratios"]["onnxruntime"][1] > 0
        assert {text.split()[0] for text, _ in marks(found)} and (found["csr_over_prunus"] is None) == (
            precision == "int8"
        )
