"""Rows as lanes over small maps: a candidate where there are classes of rows to fill lanes, and the same answers."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

import prunus
from prunus.compiler import choice, tune
from prunus.compiler.choice import Choice, LayerShape, Zeros, candidates
from prunus.compiler.schedule import refusal
from prunus.errors import ScheduleError
from prunus.kernels.isa import ISAS, LANES_TILES, Isa, isa_of
from prunus.runtime.lower.context import Draft
from prunus.runtime.lower.layer import cuts_of
from prunus.runtime.session import Session
from tests.compiler.test_winograd import compiled, single
from tests.runtime.networks import NETWORKS, Net, assert_agrees, feeds_for, onnxruntime_run

DENSE = Zeros(1.0, 1e9, None)


@pytest.fixture
def forced() -> Iterator[None]:
    """Only such candidates, for any zeros, where they apply."""

    def chosen(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
        found = [c for c in choice.candidates(shape, DENSE, isa) if c.encoding == "lanes"]
        return found or choice.candidates(shape, zeros, isa)

    with mock.patch.object(tune, "candidates", chosen):
        yield


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
@pytest.mark.parametrize("threads", [1, 2])
def test_candidates_have_kernels(isa: Isa, threads: int) -> None:
    for line in range(1, 29):
        shape = LayerShape(160, 576, 1, line * line // 4 + 1, threads, line=line)
        found = [c for c in candidates(shape, DENSE, isa) if c.encoding == "lanes"]
        assert len(found) == 1 or (line == 4 and len(found) == 2)
        for ours in found:
            assert refusal(ours, shape, isa) is None
            assert set(ours.heights) == set(isa.lanes_heights(ours.tiles_per_task * ours.tile))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
def test_blocks_of_few_rows_are_candidates_where_pixels_fill_few_vectors(isa: Isa) -> None:
    few = Zeros(0.1, max(isa.lanes // 2, 4), None)
    for vectors, line in ((1, 3), (2, 3), (3, 7)):
        found = candidates(LayerShape(160, 576, 1, vectors, 1, line=line), few, isa)
        assert any(c.encoding == "lanes" for c in found) == (vectors < 3 or isa.lanes == 4)


@pytest.mark.parametrize(
    ("applies", "attrs"),
    [
        (True, {}),
        (True, {"kernel": 1, "pads": [0] * 4}),
        (True, {"strides": [2, 2]}),
        (True, {"dilations": [2, 2]}),
        (False, {"group": 2}),
        (False, {"size": 29}),
        (False, {"size": 1, "kernel": 1, "pads": [0] * 4}),
        (False, {"zeros": 0.5}),
    ],
)
def test_is_a_candidate_for_small_maps_whose_rows_share(applies: bool, attrs: dict[str, Any]) -> None:
    seen = []

    def spy(*args: Any) -> list[Choice]:
        seen.append(choice.candidates(*args))
        return seen[-1]

    with mock.patch.object(tune, "candidates", spy):
        compiled(single(32, 32, **{"size": 7, **attrs}))
    assert any(c.encoding == "lanes" for c in seen[0]) == applies


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "partitioned"])
def test_any_batch_threads_and_without_a_compiler(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name]("N")
    one, two = compiled(model, 1), compiled(model, 2)
    assert any("as lanes" in row.kernel for row in one.explain())
    one.save(tmp_path / "net.prunus")
    monkeypatch.setenv("PRUNUS_CC", "/nonexistent")
    monkeypatch.setenv("PATH", "")
    loaded = prunus.load(tmp_path / "net.prunus", threads=1)
    for batch in (1, 4, 1):
        feeds = feeds_for(model, batch, seed=batch)
        answer = one.run(None, feeds)
        assert_agrees(answer, onnxruntime_run(model, feeds))
        for other in (two, loaded):
            for got, wanted in zip(other.run(None, feeds), answer, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 14])
def test_residuals_activations_and_padding_for_the_next(size: int) -> None:
    """Each layer reads the zeros around what the one before wrote, after another input was there."""
    net = Net({"x": ("N", 20, size, size)})

    def conv(x: str, kernel: int) -> str:
        return net.add("Conv", x, net.weight(20, 20, kernel, kernel), pads=[kernel // 2] * 4)

    y = net.add("LeakyRelu", conv("x", 5), alpha=0.1)
    z = net.add("Relu", net.add("Add", conv(y, 3), y))
    model = net.model(net.add("PRelu", conv(z, 3), net.constant(np.full((20, 1, 1), 0.3, np.float32))))
    session = compiled(model)
    assert all("as lanes" in row.kernel for row in session.explain() if row.op == "conv")
    for seed in (1, 2):
        feeds = feeds_for(model, 2, seed=seed)
        assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


def test_tuner_measures_it_and_schedules_pin_it(tmp_path: Path) -> None:
    model, path = single(32, 48, 3), tmp_path / "schedule.yaml"
    session: Session = prunus.compile(model, tune="fast", threads=1)
    (row,) = [row for row in session.explain() if row.op == "conv"]
    assert any("as lanes" in kernel for kernel in (row.kernel, *(kernel for kernel, _ in row.refused)))
    target = session.program.target
    heights = list(isa_of(target).lanes_heights(9))
    (name,) = [op.name for op in session.program.ops if op.kind == "conv"]
    text = (
        f"version: 1\ntarget: {target}\nthreads: 1\nlayers:\n  {name!r}: {{encoding: lanes, heights: {heights}, "
        "tile: 3, section: 5000, tiles_per_task: 3, pixels_outer: false}\n"
    )
    path.write_text(text)
    pinned = prunus.compile(model, threads=1, schedule=path)
    (row,) = [row for row in pinned.explain() if row.op == "conv"]
    assert "as lanes" in row.kernel and "over 3x3" in row.kernel
    path.write_text(text.replace("tile: 3", "tile: 5"))
    sizes = ", ".join(f"{high} of {wide}" for high, wide in LANES_TILES)
    with pytest.raises(ScheduleError, match=f"3 lines .tiles_per_task. of 5 pixels .tile., expected {sizes}"):
        prunus.compile(model, threads=1, schedule=path)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel": 3, "pads": [1, 1, 1, 1]},
        {"kernel": 3, "pads": [2, 0, 0, 2]},
        {"kernel": 3, "pads": [2, 2, 2, 2], "dilations": [2, 2]},
        {"kernel": 5, "pads": [2, 2, 2, 2]},
        {"kernel": 7, "pads": [3, 3, 3, 3]},
        {"kernel": 1, "pads": [0, 0, 0, 0]},
        {"kernel": 3, "pads": [1, 1, 1, 1], "strides": [2, 2], "size": 2},
        {"kernel": 3, "pads": [0, 0, 1, 1], "strides": [2, 2], "size": 2},
    ],
    ids=str,
)
def test_taps_that_meet_padding(size: int, attrs: dict[str, Any]) -> None:
    """The same answers whatever of a map of one tile each tap sees; blocks of rows share columns."""
    size *= attrs.get("size", 1)
    rest = {key: value for key, value in attrs.items() if key not in ("kernel", "size")}
    rng, net = np.random.default_rng(size), Net({"x": ("N", 12, size, size)})
    weight = rng.standard_normal((40, 12, attrs["kernel"], attrs["kernel"])).astype(np.float32)
    weight[:16] *= rng.random((1, 12, attrs["kernel"], attrs["kernel"])) < 0.3
    weight[16:24] *= rng.random((1, 12, attrs["kernel"], attrs["kernel"])) < 0.3
    weight[39] = 0
    model = net.model(net.add("Relu", net.add("Conv", "x", net.constant(weight), **rest)))
    session, feeds = compiled(model), feeds_for(model, 2, seed=1)
    assert all("as lanes" in row.kernel for row in session.explain() if row.op == "conv")
    assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 8])
def test_strided_ones_read_in_steps(size: int) -> None:
    """After another convolution, for more than one reader, with residuals; nothing is split into phases."""
    net = Net({"x": ("N", 6, size, size)})
    x = net.add("Relu", net.add("Conv", "x", net.weight(12, 6, 3, 3), pads=[1] * 4))
    y = net.add("Conv", x, net.weight(22, 12, 3, 3), pads=[1] * 4, strides=[2, 2])
    z = net.add("Conv", x, net.weight(22, 12, 1, 1), strides=[2, 2])
    model = net.model(net.add("Relu", net.add("Add", net.add("Conv", y, net.weight(22, 22, 3, 3), pads=[1] * 4), z)))
    kinds = []
    emit = Draft.emit

    def spy(draft: Draft, kind: str, **fields: Any) -> None:
        kinds.append(kind)
        emit(draft, kind, **fields)

    with mock.patch.object(Draft, "emit", spy):
        session = compiled(model)
        kinds.clear()
        for seed in (1, 2):
            feeds = feeds_for(model, 2, seed=seed)
            assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))
    assert kinds.count("lanes") == 4 and "phases" not in kinds[kinds.index("lanes") + 1 :]


@pytest.mark.parametrize(
    ("size", "attrs", "wanted"),
    [
        (3, {}, [4, 3, 5, 1, 0, 2, 7, 6, 8]),
        (3, {"kernel": (1, 3), "pads": (0, 1, 0, 1)}, [1, 0, 2]),
        (3, {"pads": (2, 0, 0, 2)}, [3, 5, 5, 3, 5, 5, 0, 2, 2]),
        (3, {"strides": (2, 2), "read": 5}, [4, 3, 5, 1, 0, 2, 7, 6, 8]),
        (3, {"strides": (2, 2), "read": 6}, [4, 3, 3, 1, 0, 0, 1, 0, 0]),
        (2, {"dilations": (2, 2), "pads": (2, 2, 2, 2)}, [4, 3, 5, 1, 0, 2, 7, 6, 8]),
        (6, {}, [0] * 9),
    ],
    ids=str,
)
def test_which_edges_a_tap_does_not_reach(size: int, attrs: dict[str, Any], wanted: list[int]) -> None:
    layouts = {"x": (1, 2, *[attrs.get("read", size)] * 2), "y": (1, 8, size, size)}
    draft = SimpleNamespace(layout=lambda name: SimpleNamespace(shape=layouts[name]))
    tile = {"tiles_per_task": min(size, 3), "tile": min(size, 3)}
    about = {"kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "choice": tile, **attrs}
    op = SimpleNamespace(inputs=("x",), outputs=("y",), attrs=about)
    found: Any = cuts_of  # draft and op are of what it asks for
    assert found(draft, op).reshape(-1, 2).T.tolist() == [wanted] * 2
