"""Chains compute the same numbers, bit by bit, as operators one after the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import prunus
from prunus.compiler.chains import chain_refusal
from prunus.compiler.compile import compile
from prunus.runtime.program import Chain, Program
from prunus.runtime.session import Session
from tests.runtime.networks import Net, feeds_for

SIZE = 45


def network(layers: list[str], channels: int = 5, size: int = SIZE, *, behind: bool = True) -> onnx.ModelProto:
    """A stack by names; "add" is a convolution with what went into the layer before as residual. `behind`: one more
    convolution, whose padding relies on what the last layer leaves around its planes."""
    net = Net({"x": ("n", 3, size, size)})
    x, before, width = net.add("Relu", net.conv("x", channels, 3)), "", channels
    for layer in layers:
        held = x
        if layer in ("1", "3", "5"):
            x = net.add("Relu", net.conv(x, width, width, int(layer)))
        elif layer == "add":
            x = net.add("Relu", net.add("Add", net.conv(x, width, width), before or x))
        elif layer == "strided":
            x = net.conv(x, width, width, 3, strides=[2, 2])
        elif layer == "strided1":
            x = net.conv(x, width, width, 1, strides=[2, 2])
        elif layer == "dilated":
            x = net.conv(x, width, width, 3, dilations=[2, 2], pads=[2] * 4)
        elif layer == "depthwise":
            x = net.add("Relu", net.conv(x, width, width, 3, group=width))
        elif layer == "max":
            x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        elif layer == "max2":
            x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        elif layer == "average":
            x = net.add("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
        before = "" if layer.startswith(("strided", "max")) and layer != "average" else held
        if layer.startswith("strided") or layer in ("max", "max2"):
            before = x
    return net.model(net.conv(x, 4, width, 3) if behind else x)


def outputs(program: Program, session: Session, chain: Chain, feeds: dict[str, np.ndarray], threads: int) -> np.ndarray:
    other = Session(replace(program, chains=(chain,)), session.code, session.constants, threads)
    other.run(None, {name: np.full_like(x, np.nan) for name, x in feeds.items()})  # leaves its traces in the arena
    return other.run(None, feeds)[0]


def assert_same(
    model: onnx.ModelProto, chain: Chain, batch: int = 1, threads: int = 1, *, refusable: bool = False
) -> None:
    session = compile(model, tune="off", threads=threads)
    problem = chain_refusal(chain, session.program, -1)
    if refusable:
        assume(problem is None)
    assert problem is None
    feeds = {name: np.repeat(x, batch, 0) for name, x in feeds_for(model).items()}
    feeds["x"] += np.arange(batch, dtype=np.float32)[:, None, None, None]
    expected = session.run(None, feeds)[0]
    np.testing.assert_array_equal(outputs(session.program, session, chain, feeds, threads), expected)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("parts, batch", [(1, 2), (3, 2), (2, 5)])
@pytest.mark.parametrize("last", [1, 2, 3])
def test_convolutions_and_pooling(rows: int, parts: int, batch: int, last: int) -> None:
    assert_same(network(["3", "max2", "3"]), Chain(0, last, rows, parts), batch)


@pytest.mark.parametrize(
    "layer", ["1", "3", "5", "strided", "strided1", "dilated", "depthwise", "max", "max2", "average"]
)
@pytest.mark.parametrize("first, last", [(0, 1), (1, 2), (0, 3)])
def test_each_layer_first_between_and_last(layer: str, first: int, last: int) -> None:
    assert_same(network(["1", layer, "3"]), Chain(first, last, 4, 2), 1, 2)


def test_residuals_inside_and_from_outside() -> None:
    for first, last in ((0, 2), (1, 2), (1, 4), (0, 4)):
        assert_same(network(["3", "add", "3", "add"]), Chain(first, last, 5, 2))


def test_what_the_chain_makes_may_be_returned() -> None:
    for parts in (1, 3):
        assert_same(network(["3", "3"], behind=False), Chain(0, 2, 4, parts))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("rows", range(1, 17))
def test_gaps_between_bands_are_zero(rows: int, parts: int) -> None:
    """Where the next layer pads, also where a band ends with a whole vector: 7 rows of 22 at a pitch of 23 do."""
    assert_same(network(["max2", "1"], 4), Chain(1, 2, rows, parts))


LAYERS = ["1", "3", "5", "add", "depthwise", "dilated", "average", "strided", "strided1", "max", "max2"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4).filter(
        lambda some: sum(layer.startswith(("strided", "max")) for layer in some) < 2
    ),
    rows=st.integers(1, 12),
    parts=st.integers(1, 3),
    batch=st.integers(1, 3),
    channels=st.sampled_from([4, 16, 17]),
    data=st.data(),
)
def test_any_stack(layers: list[str], rows: int, parts: int, batch: int, channels: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(layers) - 1))
    chain = Chain(first, data.draw(st.integers(first + 1, len(layers))), rows, parts)
    assert_same(network(layers, channels), chain, batch, refusable=True)


def test_memory_is_less_than_of_the_tensors_between() -> None:
    model = network(["3", "3", "3"], 32, 64)
    session = compile(model, tune="off", threads=1)
    plain = Session(session.program, session.code, session.constants, 1)
    chained = Session(replace(session.program, chains=(Chain(0, 3, 4, 1),)), session.code, session.constants, 1)
    for some in (plain, chained):
        some.run(None, feeds_for(model))
    assert chained.memory()["arena"] < 0.75 * plain.memory()["arena"]


def test_profile_counts_each_operator_once() -> None:
    model = network(["3", "max2", "3"])
    session = compile(model, tune="off", threads=2)
    other = Session(replace(session.program, chains=(Chain(0, 3, 4, 2),)), session.code, session.constants, 2)
    rows = other.profile(feeds_for(model), rounds=2)
    assert [row.node for row in rows if row.op != "copy"] == [op.name for op in session.program.ops]
    assert all(row.ms > 0 for row in rows)


def test_an_artefact_keeps_its_chains(tmp_path: Path) -> None:
    model = network(["3", "max2"])
    session = compile(model, tune="off", threads=1)
    other = Session(replace(session.program, chains=(Chain(0, 2, 4, 1),)), session.code, session.constants, 1)
    path = f"{tmp_path}/net.prunus"
    other.save(path)
    loaded = prunus.load(path, threads=1)
    assert loaded.program.chains == (Chain(0, 2, 4, 1),)
    np.testing.assert_array_equal(loaded.run(None, feeds_for(model))[0], session.run(None, feeds_for(model))[0])
