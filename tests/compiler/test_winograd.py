"""Which layers F(2x2, 3x3) is a candidate for, and that sessions with it answer, save and report as others do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest

import prunus
from prunus.compiler import choice, tune
from prunus.compiler.choice import Choice, LayerShape, Zeros, candidates
from prunus.kernels.isa import ISAS, Isa
from prunus.runtime.native import Bound
from prunus.runtime.session import Session
from tests.runtime.networks import NETWORKS, Net, assert_agrees, feeds_for, onnxruntime_run

DENSE = Zeros(1.0, 1.0, None)
WITH_3X3 = ("residual", "concat", "classifier", "two_ports")


def winograd_only(pixels_outer: bool | None = None) -> Any:
    """Only such candidates, for any zeros, where they apply."""

    def chosen(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
        if not shape.tile_vectors:
            return choice.candidates(shape, zeros, isa)
        found = [c for c in choice.candidates(shape, DENSE, isa) if c.encoding == "winograd"]
        return [c for c in found if pixels_outer in (None, c.pixels_outer)] or found

    return mock.patch.object(tune, "candidates", chosen)


@pytest.fixture
def forced() -> Iterator[None]:
    with winograd_only():
        yield


def compiled(model: onnx.ModelProto, threads: int = 1) -> Session:
    return prunus.compile(model, tune="off", threads=threads)


def single(channels: int, filters: int, size: int, kernel: int = 3, zeros: float = 0, **attrs: Any) -> onnx.ModelProto:
    net = Net({"x": ("N", channels, size, size)})
    weight = net.weight(filters, channels // attrs.get("group", 1), kernel, kernel, zeros=zeros)
    return net.model(net.add("Conv", net.add("Relu", "x"), weight, **{"pads": [1] * 4, **attrs}))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_candidates_have_kernels(isa: Isa, threads: int) -> None:
    for m, channels, vectors in ((1, 1, 1), (3, 512, 2), (64, 64, 98), (256, 256, 7), (7, 3, 5000), (2048, 2048, 1)):
        found = candidates(
            LayerShape(m, channels * 9, 1, 4 * vectors, threads, vectors, tile_positions=16, tile_planes=channels),
            DENSE,
            isa,
        )
        ours = [c for c in found if c.encoding == "winograd"]
        assert ours and found[0].encoding != "winograd" and len(set(found)) == len(found)
        for c in ours:
            assert 1 in c.heights and c.section % max(c.heights) == 0 and c.tiles_per_task >= 1
            assert all(1 <= c.tile <= dict(isa.tiles)[height] for height in c.heights), str(c)


@pytest.mark.parametrize(
    ("applies", "attrs"),
    [
        (True, {}),
        (True, {"pads": [0, 1, 2, 0]}),
        (False, {"strides": [2, 2]}),
        (False, {"strides": [1, 2]}),
        (False, {"dilations": [2, 2]}),
        (False, {"group": 2}),
        (False, {"kernel": 5}),
        (True, {"kernel": 7, "strides": [2, 2], "pads": [3] * 4}),
        (False, {"kernel": 7, "pads": [3] * 4}),
        (False, {"kernel": 7, "strides": [2, 2], "pads": [3] * 4, "channels": 17}),
        (False, {"kernel": 7, "strides": [2, 2], "pads": [3] * 4, "group": 2}),
        (False, {"kernel": 1}),
        (False, {"zeros": 0.5}),
        (False, {"size": 1}),
    ],
)
def test_is_a_candidate_for_dense_3x3_of_stride_1_and_7x7_of_2(applies: bool, attrs: dict[str, Any]) -> None:
    seen = []

    def spy(*args: Any) -> list[Choice]:
        seen.append(choice.candidates(*args))
        return seen[-1]

    with mock.patch.object(tune, "candidates", spy):
        compiled(single(**{"channels": 8, "filters": 8, "size": 9, **attrs}))
    assert any(c.encoding == "winograd" for c in seen[0]) == applies


@pytest.mark.parametrize("pixels_outer", [True, False])
def test_is_accurate_over_many_channels(pixels_outer: bool) -> None:
    """Random normal weights: as near to onnxruntime as float32 sums get."""
    model = single(512, 64, 14)
    with winograd_only(pixels_outer):
        session = compiled(model, 2)
    feeds = feeds_for(model)
    (got,), (wanted,) = session.run(None, feeds), onnxruntime_run(model, feeds)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("threads", "channels"), [(1, 3), (2, 3), (1, 16)])
def test_7x7_at_stride_2_is_accurate(threads: int, channels: int) -> None:
    """As in ResNet, and over as many channels as it is offered for: random normal weights and pixels."""
    net = Net({"x": ("N", channels, 96, 80)})
    model = net.model(net.add("Conv", "x", net.weight(64, channels, 7, 7), pads=[3] * 4, strides=[2, 2]))
    with winograd_only():
        session = compiled(model, threads)
    assert any("winograd" in row.kernel for row in session.explain())
    for batch in (1, 2):
        feeds = feeds_for(model, batch)
        (got,), (wanted,) = session.run(None, feeds), onnxruntime_run(model, feeds)
        assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", WITH_3X3)
def test_any_batch_threads_and_without_a_compiler(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name]("N")
    one, two = compiled(model, 1), compiled(model, 2)
    assert any("winograd" in row.kernel for row in one.explain())
    one.save(tmp_path / "net.prunus")
    monkeypatch.setenv("PRUNUS_CC", "/nonexistent")
    monkeypatch.setenv("PATH", "")
    loaded = prunus.load(tmp_path / "net.prunus", threads=1)
    for batch in (1, 4, 1, 3):
        feeds = feeds_for(model, batch, seed=batch)
        answer = one.run(None, feeds)
        assert_agrees(answer, onnxruntime_run(model, feeds))
        for other in (two, loaded):
            for got, wanted in zip(other.run(None, feeds), answer, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.usefixtures("forced")
def test_reports_count_direct_operations() -> None:
    model = single(16, 24, 10)
    session = compiled(model)
    (row,) = [row for row in session.profile(feeds_for(model), rounds=2) if row.op == "conv"]
    assert row.kernel.startswith("winograd ") and row.sparsity == 0
    assert row.gflops == pytest.approx(2 * 16 * 9 * 24 * 100 / (row.ms * 1e6))
    assert [r.kernel for r in session.explain() if r.op == "conv"] == [row.kernel]


def test_candidates_are_measured_in_the_same_memory() -> None:
    """Each with its own they would throw each other out of the last cache, and large layers look slow."""
    seen = []

    def bound(*arguments: Any) -> Bound:
        seen.append(Bound(*arguments))
        return seen[-1]

    with mock.patch.object(tune, "Bound", bound):
        prunus.compile(single(16, 16, 20), tune="fast", threads=1)
    assert len(seen) > 2 and len({run.arena.ctypes.data for run in seen}) == 1
    assert all(run.arena.size >= run.plan.arena and run.scratch.size >= run.plan.scratch for run in seen)


def test_tuner_measures_it_beside_the_others() -> None:
    session = prunus.compile(single(64, 64, 28), tune="fast", threads=1)
    (row,) = [row for row in session.explain() if row.op == "conv"]
    assert any("winograd" in kernel for kernel in (row.kernel, *(kernel for kernel, _ in row.refused)))
    assert "measured" in row.reason
