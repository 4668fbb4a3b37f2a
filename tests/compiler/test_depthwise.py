"""Which layers the depthwise kernel is a candidate for, and that sessions with it answer, save and report as others."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest

import prunus
from prunus.compiler import choice, tune
from prunus.compiler.choice import LayerShape, Zeros, candidates
from prunus.compiler.schedule import schedule_text
from prunus.errors import ScheduleError
from prunus.kernels.isa import ISAS, Isa
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run


def single(
    channels: int = 8, filters: int = 8, size: int = 11, kernel: int = 3, zeros: float = 0, **attrs: Any
) -> onnx.ModelProto:
    """A convolution between activations; of one group per channel unless `attrs` say otherwise."""
    net = Net({"x": ("N", channels, size, size)})
    attrs = {"group": channels, "pads": [kernel // 2] * 4, **attrs}
    weight = net.weight(filters, channels // attrs["group"], kernel, kernel, zeros=zeros)
    return net.model(net.add("Relu", net.add("Conv", net.add("Relu", "x"), weight, **attrs)))


def inverted(batch: Any = 1) -> onnx.ModelProto:
    """Two inverted residual blocks as MobileNetV2 has them, the first of stride 2, with 5x5 and 3x3 windows."""
    net = Net({"x": (batch, 3, 21, 26)})
    low, high = net.constant(np.float32(0)), net.constant(np.float32(6))
    stem = net.conv("x", 12, 3)
    wide = net.add("Clip", net.conv(stem, 24, 12, 1), low, high)
    deep = net.add("Clip", net.conv(wide, 24, 24, 5, group=24, strides=[2, 2]), low, high)
    narrow = net.conv(deep, 12, 24, 1)
    wide = net.add("HardSwish", net.conv(narrow, 24, 12, 1))
    deep = net.add("HardSwish", net.conv(wide, 24, 24, 3, group=24))
    return net.model(net.add("Add", net.conv(deep, 12, 24, 1), narrow))


def first_choices(model: onnx.ModelProto) -> list[choice.Choice]:
    seen = []

    def spy(*args: Any) -> list[choice.Choice]:
        seen.append(choice.candidates(*args))
        return seen[-1]

    with mock.patch.object(tune, "candidates", spy):
        prunus.compile(model, tune="off", threads=1)
    return seen[0]


@pytest.mark.parametrize(
    ("applies", "attrs"),
    [
        (True, {}),
        (True, {"kernel": 5}),
        (True, {"strides": [2, 2]}),
        (True, {"kernel": 5, "strides": [2, 2], "pads": [0, 1, 2, 0]}),
        (True, {"filters": 24}),
        (True, {"zeros": 0.9}),
        (False, {"kernel": 7}),
        (False, {"kernel": 1}),
        (False, {"strides": [1, 2]}),
        (False, {"strides": [3, 3]}),
        (False, {"dilations": [2, 2]}),
        (False, {"group": 4}),
        (False, {"group": 1}),
        (False, {"size": 3, "pads": [0] * 4}),
    ],
)
def test_is_the_first_candidate_where_it_applies(applies: bool, attrs: dict[str, Any]) -> None:
    model = single(**attrs)
    ways = [c.encoding for c in first_choices(model)]
    assert ("depthwise" in ways) == applies and (ways[0] == "depthwise") == applies
    feeds = feeds_for(model, 2)
    assert_agrees(prunus.compile(model, tune="off", threads=1).run(None, feeds), onnxruntime_run(model, feeds))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_every_thread_has_planes(isa: Isa, threads: int) -> None:
    for m, vectors in ((2, 1), (32, 1568), (960, 7), (576, 27)):
        shape = LayerShape(m, 9 * m, m, vectors, threads, window=True)
        first = candidates(shape, Zeros(1.0, 1.0, None), isa)[0]
        assert first.encoding == "depthwise" and 1 <= first.tiles_per_task <= m
        if m >= 8 * threads > 8 and vectors > 100:
            assert -(-m // first.tiles_per_task) >= threads


def test_any_batch_threads_and_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = inverted("N")
    one, two = (prunus.compile(model, tune="off", threads=n) for n in (1, 2))
    assert sum(row.kernel.startswith("depthwise") for row in one.explain()) == 2
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


def test_a_schedule_pins_either_way(tmp_path: Path) -> None:
    model, path = inverted(), tmp_path / "schedule.yaml"
    text = schedule_text(prunus.compile(model, tune="off", threads=1).program, 1)
    assert text.count("encoding: depthwise") == 2
    path.write_text(text.replace("encoding: depthwise", "encoding: rows"))
    session = prunus.compile(model, tune="off", threads=1, schedule=path)
    assert not any(row.kernel.startswith("depthwise") for row in session.explain())
    feeds = feeds_for(model)
    assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


def test_a_schedule_can_not_ask_it_of_other_layers(tmp_path: Path) -> None:
    model, path = single(group=4), tmp_path / "schedule.yaml"
    text = schedule_text(prunus.compile(model, tune="off", threads=1).program, 1)
    path.write_text(text.replace("encoding: rows", "encoding: depthwise"))
    with pytest.raises(ScheduleError, match="depthwise computes 3x3 and 5x5"):
        prunus.compile(model, tune="off", threads=1, schedule=path)


def test_tuner_measures_it_beside_rows() -> None:
    session = prunus.compile(single(64, 64, 28), tune="fast", threads=1)
    (row,) = [row for row in session.explain() if row.op == "conv"]
    kernels = [row.kernel, *(kernel for kernel, _ in row.refused)]
    assert any(k.startswith("depthwise") for k in kernels) and any(k.startswith("rows") for k in kernels)
    assert "measured" in row.reason
