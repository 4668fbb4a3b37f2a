"""Marks, tables from results, the store, and the CSR baseline: nothing here is timed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench.goals import Goal, Limit, marks
from bench.measure import KINDS
from bench.tables import speed
from bench.zoo import ZOO

from bench import barrier, csr, goals, report, store
from prunus.benchmark.engines import ENGINES, OnnxRuntime, missing, open_engine
from prunus.benchmark.sessions import Setting


def goal(*limits: Limit) -> Goal:
    return Goal("race", "resnet50", "unstructured", 0.9, limits)


def ratios(**medians: float) -> dict[str, Any]:
    return {"ratios": {name: [m - 0.5, m, m + 0.5] for name, m in medians.items()}}


def test_best_is_the_peer_that_is_hardest_to_beat() -> None:
    row = ratios(onnxruntime=4.0, openvino=2.5)
    limits = (Limit("best", 2.5), Limit("best", 2.6), Limit("onnxruntime", 4.0), Limit("ncnn", 1.0))
    assert [(m.found, m.verdict) for m in marks(goal(*limits), row)] == [
        (2.5, "pass"), (2.5, "short"), (4.0, "pass"), (None, "no peer"),
    ]  # fmt: skip


def test_what_was_not_measured_does_not_pass() -> None:
    asked = goal(Limit("best", 1.0), Limit("value", most=2.0))
    assert [m.verdict for m in marks(asked, {"failure": "crash"})] == ["failed", "failed"]
    assert [m.verdict for m in marks(asked, {"unsupported": "no bf16"})] == ["not supported", "not supported"]
    assert marks(goal(Limit("best", 1.0)), ratios())[0].verdict == "no peer"


def test_values_have_bounds_on_either_side() -> None:
    limits = (Limit("value", 0.8), Limit("value", most=0.8), Limit("value", 0.7), Limit("value", most=0.7))
    assert [m.verdict for m in marks(goal(*limits), {"value": 0.75})] == ["short", "pass", "pass", "short"]


def test_goals_are_told_apart_and_name_engines_and_networks() -> None:
    assert len({g.name for g in goals.GOALS}) == len(goals.GOALS)
    for g in goals.GOALS:
        assert (g.network is None or g.network in ZOO) and g.kind in KINDS and set(g.peers) <= set(ENGINES)
        assert all(x.against in ("best", "value", *g.peers) and (x.least is None) != (x.most is None) for x in g.limits)


def test_goals_about_one_number_of_threads_run_once() -> None:
    fixed, free = Goal("barrier", None, None, 0.0, (), threads=2), goal()
    assert [fixed.runs_on(asked) for asked in ([1, 2], [2], [1])] == [[2], [2], []]
    assert free.runs_on([1, 2]) == [1, 2]
    assert fixed.name == "barrier"


def test_a_job_costs_something() -> None:
    """The row has what the limits and the table read; how much it is depends on who else runs."""
    row = barrier.measure(0.0)
    assert row["quartiles"][0] <= row["value"] <= row["quartiles"][1]
    assert row["task_us"] > 0


def result(key: str, commit: str = "abc", quick: bool = False, **more: Any) -> dict[str, Any]:
    machine = {"cpu": "Quince", "target": "t", "cores": 2, "l1": 1 << 15, "l2": 0, "l3": 0}
    return {
        "commit": commit, "date": "2026-01-02T03:04:05+00:00", "machine": machine, "packages": {"onnxruntime": "1"},
        "key": key, "threads": 1, "quick": quick, **more,
    }  # fmt: skip


def test_store_keeps_whole_rows_and_knows_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    assert store.read(path) == []
    rows = [result("a"), result("b", quick=True), result("c", failure="crash"), result("a", commit="def")]
    for row in rows:
        store.append(path, row)
    assert store.read(path) == rows
    assert [p.name for p in path.parent.iterdir()] == ["r.jsonl"]
    assert path.read_text().count("\n") == 4
    asked = [("a", "abc"), ("b", "abc"), ("c", "abc"), ("a", "xyz")]
    assert [store.is_measured(rows, *pair) for pair in asked] == [True, False, False, False]
    assert store.latest(rows)["a"]["commit"] == "def"


def test_table_shows_the_last_full_measurement() -> None:
    name = next(g for g in goals.GOALS if g.scheme == "unstructured").name
    key = f"{name}, 1 threads"
    old = result(key, ms={"prunus": 9.0}, left_out={}, **ratios(onnxruntime=1.0))
    new = result(key, ms={"prunus": 3.0}, left_out={"ncnn": "ncnn: not installed"}, **ratios(onnxruntime=4.0))
    quick = result(key, quick=True, ms={"prunus": 1.0}, left_out={}, **ratios(onnxruntime=99.0))
    table = speed.goals_table([old, new, quick])
    assert f"| {name} | 1 | 3.0 | at least 3 x best | **4.00** (3.50 to 4.50) | pass |" in table
    assert "Left out: ncnn: not installed." in table and "L1 32 KiB" in table and "99" not in table
    assert "Not measured yet" in speed.goals_table([quick])


def test_fill_changes_what_is_between_markers_only() -> None:
    text = "a\n<!-- table:one -->\nold\n<!-- /table -->\nb\n<!-- table:two -->\nkept\n<!-- /table -->\n"
    filled = report.fill(text, {"one": lambda: "new", "absent": lambda: "never"})
    assert filled == text.replace("old", "new")
    assert report.fill(filled, {"one": lambda: "new"}) == filled


@pytest.mark.parametrize("document", report.DOCUMENTS, ids=lambda path: path.name)
def test_documents_say_what_the_results_say(document: Path) -> None:
    text = document.read_text()
    assert report.fill(text) == text


def test_every_table_is_shown_somewhere() -> None:
    text = "".join(document.read_text() for document in report.DOCUMENTS)
    assert all(f"<!-- table:{name} -->" in text for name in report.TABLES)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 2, 0)])
def test_csr_products_are_the_convolution(kernel: int, stride: int, pad: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-3, 4, (7, 4, kernel, kernel)).astype(np.float32) * (rng.random((7, 4, kernel, kernel)) < 0.3)
    x = rng.integers(-3, 4, (1, 4, 9, 8)).astype(np.float32)
    node = onnx.helper.make_node(
        "Conv", ["x", "w"], ["y"], name="c", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
    )
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("x", 1, x.shape)],
        [onnx.helper.make_tensor_value_info("y", 1, None)], [onnx.numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "c.onnx")
    expected = OnnxRuntime(tmp_path / "c.onnx", Setting(1)).run({"x": x})[0][0].reshape(7, -1)
    (layer,) = csr.pruned_layers(model)
    columns = csr.im2col(x[0], (kernel, kernel), stride, pad)
    assert (layer.name, columns.shape[1]) == ("c", layer.columns)
    for library, product in csr.products(layer.weights, 1).items():
        np.testing.assert_array_equal(product(columns), expected, err_msg=library)


@pytest.mark.parametrize("engine", ["ncnn", "mnn", "litert"])
def test_peers_compute_the_zoo(engine: str, tmp_path: Path) -> None:
    """Strides, padded pooling, depthwise layers, residuals, ReLU6 and flattening of planes."""
    if absent := missing(engine):
        pytest.skip(str(absent))
    for name, options in (("resnet18", {"size": 64}), ("vgg16-32", {}), ("efficientnet-lite0", {})):
        model = ZOO[name](**options)
        onnx.save(model, tmp_path / "m.onnx")
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        x = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
        expected = OnnxRuntime(tmp_path / "m.onnx", Setting(1)).run(x)[0]
        found = open_engine(engine, tmp_path / "m.onnx", Setting(1)).run(x)[0]
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), name


def test_mnn_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own command runs pip when a logging package is missing, which this one hides in any case."""
    if absent := missing("mnn"):
        pytest.skip(str(absent))
    for name, text in (("pip", '#!/bin/sh\ntouch "$0.ran"\n'), ("aliyun.py", "raise ImportError\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    onnx.save(ZOO["vgg16-32"](), tmp_path / "m.onnx")
    open_engine("mnn", tmp_path / "m.onnx", Setting(1))
    assert not (tmp_path / "pip.ran").exists()


def test_results_that_are_committed_can_be_read() -> None:
    for path in store.RESULTS.glob("*.jsonl"):
        assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())
