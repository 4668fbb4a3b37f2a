"""The race: the list of engines, agreement before timing, ratios, and what is left out."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import prunus
from prunus.benchmark.engines import ENGINES, EngineKind, OnnxRuntime, missing, open_engine
from prunus.benchmark.feeds import Feeds, onnx_inputs, random_feeds, resolve_shapes
from prunus.benchmark.footprint import measure_footprint, peak_bytes
from prunus.benchmark.race import benchmark, peer_ratios
from prunus.benchmark.refusals import EngineRefusal, NotInstalled
from prunus.benchmark.sessions import Setting, is_artefact, open_session
from prunus.errors import ArtefactError, FeedError, TargetError, UnsupportedError
from tests.runtime.networks import classifier, residual, two_ports

ONE = Setting(1, tune="off")
QUICK: dict[str, Any] = {"time_s": 0.0, "warmup_s": 0.0}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(classifier("batch"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


SLOW = ("torch-compile",)  # C++ compilations


@pytest.mark.parametrize("engine", [pytest.param(e, marks=pytest.mark.slow) if e in SLOW else e for e in ENGINES])
def test_every_engine_gives_the_same(engine: str, model: Path) -> None:
    if absent := missing(engine):
        pytest.skip(str(absent))
    ports = onnx_inputs(model)
    batch = 3 if ENGINES[engine].batches else 1
    shapes = resolve_shapes(ports, {}, batch=batch)
    feeds = random_feeds(ports, shapes, 0)
    setting = Setting(1, shapes, tune="off")
    try:
        own = open_engine(engine, model, setting).run(feeds)
    except EngineRefusal as refusal:
        if "-" not in engine:
            raise
        pytest.skip(str(refusal))  # of a precision that this CPU hasn't got
    expected = OnnxRuntime(model, setting).run(feeds)
    assert own[0].shape == (batch, 10)
    np.testing.assert_allclose(own[0], expected[0], atol=0.05 if engine.endswith("bf16") else 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_takes_several_callers_or_says_no(engine: str, model: Path) -> None:
    if absent := missing(engine):
        pytest.skip(str(absent))
    ports = onnx_inputs(model)
    shapes = resolve_shapes(ports, {})
    setting = Setting(1, shapes, tune="off", streams=3)
    if not ENGINES[engine].streams:
        with pytest.raises(EngineRefusal, match=rf"{engine}: model\.onnx.*3 streams"):
            open_engine(engine, model, setting)
        return
    feeds = [random_feeds(ports, shapes, seed) for seed in range(12)]
    expected = [OnnxRuntime(model, Setting(1)).run(x)[0] for x in feeds]
    try:
        opened = open_engine(engine, model, setting)
    except EngineRefusal as refusal:
        pytest.skip(str(refusal))  # of a precision that this CPU hasn't got
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(opened.run, feeds))
    for own, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(own[0], right, atol=0.05 if engine.endswith("bf16") else 1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch", "torch-compile"])
def test_refusals_are_one_line(engine: str, tmp_path: Path) -> None:
    if absent := missing(engine):
        pytest.skip(str(absent))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Quince", ["x"], ["y"], domain="orchard")], "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1])], [onnx.helper.make_tensor_value_info("y", 1, [1])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("orchard", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "q.onnx")
    with pytest.raises(EngineRefusal, match=rf"{engine}: q\.onnx") as refusal:
        open_engine(engine, tmp_path / "q.onnx", ONE)
    assert "\n" not in str(refusal.value)


def test_race(model: Path) -> None:
    prunus.compile(model, tune="off", threads=1).save(model.with_suffix(".prunus"))
    files = [model, model.with_suffix(".prunus")]
    result = benchmark(files, ["prunus", "onnxruntime"], ONE, batch=2, **QUICK)
    rows = {(row.engine, row.model): row for row in result.rows}
    assert list(rows) == [("prunus", "model.onnx"), ("onnxruntime", "model.onnx"), ("prunus", "model.prunus")]
    assert (result.mismatches, result.notes, result.baseline) == ((), (), "onnxruntime model.onnx")
    base = rows["onnxruntime", "model.onnx"]
    assert base.ratio is not None
    assert (base.ratio.median, base.error, base.compile_s) == (1.0, None, None)
    for row in rows.values():
        assert row.median_ms is not None and row.min_ms is not None and row.p90_ms is not None
        assert 0 < row.min_ms <= row.median_ms <= row.p90_ms
        assert row.load_s is not None and 0 < row.load_s < 60
        assert row.peak_bytes is not None and 10e6 < row.peak_bytes < 10e9
        assert row is base or (row.error is not None and row.error < 1e-5)
    assert rows["prunus", "model.onnx"].compile_s is not None
    own = rows["prunus", "model.onnx"]
    assert [(a, b) for a, b, _ in peer_ratios(result)] == [(own, base)]
    assert peer_ratios(result)[0][2].median == pytest.approx(own.ratio.median, rel=1e-3)
    assert rows["prunus", "model.prunus"].compile_s is None


@final
class Wrong:
    """onnxruntime's answer, a little off."""

    def __init__(self, model: Path, setting: Setting) -> None:
        self.right = OnnxRuntime(model, setting)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return [y * np.float32(1.01) for y in self.right.run(feeds)]


def test_mismatch_is_named_and_nothing_is_timed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "wrong", EngineKind((), Wrong))  # type: ignore[arg-type]
    result = benchmark([model], ["onnxruntime", "wrong"], ONE, **QUICK)
    assert len(result.mismatches) == 1
    assert all(fact in result.mismatches[0] for fact in ("wrong model.onnx", "1.0e-02", "1e-04"))
    assert [row.median_ms for row in result.rows] == [None, None]
    near = benchmark([model], ["onnxruntime", "wrong"], ONE, tolerance=0.1, footprints=False, **QUICK)
    assert near.mismatches == ()


def test_engines_that_are_missing_are_noted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "quince", EngineKind(("quince_engine",), Wrong))  # type: ignore[arg-type]
    result = benchmark([model], ["quince", "onnxruntime"], ONE, footprints=False, **QUICK)
    assert [row.engine for row in result.rows] == ["onnxruntime"]
    assert any(note.startswith("quince: not installed (pip install") for note in result.notes)
    assert any("not compared" in note for note in result.notes)
    with pytest.raises(EngineRefusal, match="quince: not installed"):
        benchmark([model], ["quince"], ONE)
    with pytest.raises(NotInstalled, match="quince"):
        open_engine("quince", model, ONE)


def test_what_cant_be_raced(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"'pear'.*prunus, onnxruntime, openvino"):
        benchmark([model], ["pear"], ONE)
    with pytest.raises(FeedError, match=r"'z'.*x"):
        benchmark([model], ["prunus"], Setting(1, {"z": (1,)}), **QUICK)
    artefact = tmp_path / "a.prunus"
    prunus.compile(model, tune="off").save(artefact)
    with pytest.raises(UnsupportedError, match=r"a\.prunus.*onnxruntime"):
        open_engine("onnxruntime", artefact, ONE)


def test_networks_of_other_inputs_side_by_side(model: Path, tmp_path: Path) -> None:
    onnx.save(two_ports(), tmp_path / "two.onnx")
    setting = Setting(1, {"x": (4, 3, 8, 8)}, tune="off")
    result = benchmark([model, tmp_path / "two.onnx"], ["onnxruntime", "prunus"], setting, footprints=False, **QUICK)
    assert result.mismatches == ()
    assert len(result.rows) == 4


def test_race_of_streams_leaves_out_who_takes_one_call(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "quince", EngineKind((), Wrong))  # type: ignore[arg-type]
    setting = Setting(1, tune="off", streams=2)
    result = benchmark([model], ["prunus", "quince", "onnxruntime"], setting, footprints=False, **QUICK)
    assert [row.engine for row in result.rows] == ["prunus", "onnxruntime"]
    assert any("quince" in note and "2 streams" in note for note in result.notes)
    assert result.streams == 2
    for row in result.rows:
        assert row.per_second is not None and row.per_second > 0


def test_footprint_of_a_model_that_fails_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", x=np.zeros(1))
    assert measure_footprint("onnxruntime", tmp_path / "none.onnx", ONE, tmp_path / "feeds.npz") is None


def test_footprint_doesnt_count_the_parent(tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    prunus.compile(tmp_path / "m.onnx", tune="off", threads=1).save(tmp_path / "m.prunus")
    np.savez(tmp_path / "feeds.npz", x=np.zeros((1, 3, 10, 9), np.float32))
    ballast = np.ones(100_000_000, np.uint8)
    found = measure_footprint("prunus", tmp_path / "m.prunus", ONE, tmp_path / "feeds.npz")
    assert found is not None
    assert peak_bytes() > len(ballast)
    if sys.platform == "linux":
        assert found.base_bytes <= found.peak_bytes < 100e6


def test_artefacts_are_known_by_name_or_content(model: Path, tmp_path: Path) -> None:
    prunus.compile(model, tune="off").save(tmp_path / "a.bin")
    assert is_artefact(tmp_path / "a.bin")
    assert is_artefact(Path("nowhere.prunus"))
    assert not is_artefact(model)
    assert not is_artefact(tmp_path / "nowhere.onnx")
    assert open_session(tmp_path / "a.bin", ONE).threads == 1
    with pytest.raises(ArtefactError, match=r"nowhere\.prunus"):
        open_session(Path("nowhere.prunus"), ONE)
