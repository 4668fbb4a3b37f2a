"""Which operators are computed depth first: chosen by what they save, written to schedules, refused by name."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunus.compiler import chains as subject
from prunus.compiler.chains import best_apart, chain_refusal
from prunus.compiler.compile import compile
from prunus.compiler.schedule import schedule_text
from prunus.errors import ScheduleError
from prunus.runtime.program import Chain
from tests.runtime.lower.test_chain import network
from tests.runtime.networks import Net, feeds_for


def test_the_best_chains_that_share_no_operator() -> None:
    a, b, c, d = Chain(0, 2, 4, 1), Chain(3, 5, 4, 1), Chain(0, 5, 4, 1), Chain(2, 3, 4, 1)
    assert best_apart({a: 1.0, b: 1.0, c: 1.5, d: 0.5}) == (a, b)
    assert best_apart({a: 1.0, b: 1.0, c: 2.5, d: 0.5}) == (c,)
    assert best_apart({a: 0.0, d: 0.5, b: 0.0}) == (d,)
    assert best_apart({a: 0.0}) == ()
    assert best_apart({}) == ()


def test_a_chain_that_saves_time_is_taken_and_comes_back_with_the_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever this machine measures: times are made up here, in favour of one chain."""
    wanted = Chain(1, 2, 4, 1)

    def times(
        program: object, constants: object, options: list[Chain], bench: object
    ) -> dict[Chain, tuple[float, float]]:
        return {chain: (1.0, 0.5 if (chain.first, chain.last) == (1, 2) else 1.0) for chain in options}

    monkeypatch.setattr(subject, "_times", times)
    monkeypatch.setattr(subject, "_n_bytes", lambda *_: 1 << 40)
    model = network(["3", "max2", "3"])
    monkeypatch.setattr(subject, "_whole", lambda *_: (1.0, 1.0))
    assert compile(model, threads=1).program.chains == ()  # it was faster once, and isn't now
    monkeypatch.setattr(subject, "_whole", lambda *_: (1.0, 0.9))
    session = compile(model, threads=1)
    (chain,) = session.program.chains
    assert (chain.first, chain.last) == (wanted.first, wanted.last)
    reasons = {row.node: row.reason for row in session.explain()}
    assert "depth first from conv2 to maxpool4" in reasons["conv2"]
    path = tmp_path / "schedule.yaml"
    path.write_text(schedule_text(session.program, 1))
    again = compile(model, threads=1, tune="off", schedule=path)
    assert again.program.chains == session.program.chains
    feeds = feeds_for(model)
    np.testing.assert_array_equal(again.run(None, feeds)[0], session.run(None, feeds)[0])


def test_nothing_is_measured_where_tensors_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_measure", lambda *_: pytest.fail("measured"))
    assert compile(network(["3", "3"]), threads=1).program.chains == ()


def test_large_tensors_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By running the candidates, which must all be chains that can be."""
    monkeypatch.setattr(subject, "_n_bytes", lambda *_: 1 << 40)
    monkeypatch.setattr("prunus.compiler.compile.latencies_for", lambda *_: None)
    seen = []
    measure = subject._measure

    def watched(program: object, constants: object, options: list[Chain], bench: object) -> object:
        seen.extend(options)
        found = measure(program, constants, options, bench)  # type: ignore[arg-type]
        together = subject._whole(program, constants, (options[0],), bench)  # type: ignore[arg-type]
        assert all(before > 0 and after > 0 for before, after in (*found.values(), together))
        return found

    monkeypatch.setattr(subject, "_measure", watched)
    model = network(["3", "add", "strided", "1"])
    session = compile(model, threads=2)
    assert seen and all(chain_refusal(chain, session.program, -1) is None for chain in seen)


def test_outputs_of_unknown_size_are_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another engine makes has no place in the plan, and no size beforehand."""
    monkeypatch.setattr(subject, "_n_bytes", lambda *_: 1 << 40)
    monkeypatch.setattr("prunus.compiler.compile.latencies_for", lambda *_: None)
    net = Net({"x": (1, 4, 40, 40)})
    y = net.conv(net.conv("x", 8, 4), 8, 8)
    session = compile(net.model(y, net.add("NonZero", net.add("Relu", y))), threads=1)
    assert any(op.kind == "onnxruntime" for op in session.program.ops)


def split_ends() -> onnx.ModelProto:
    """The first layer's output is read by the second, and behind it."""
    net = Net({"x": (1, 4, 40, 40)})
    a = net.conv("x", 8, 4)
    b = net.conv(a, 8, 8)
    return net.model(net.add("Concat", net.add("Sigmoid", a), b, axis=1))


@pytest.mark.parametrize(
    "chain, behind, text",
    [
        (Chain(0, 1, 0, 1), -1, "rows 0"),
        (Chain(1, 1, 4, 1), -1, "order"),
        (Chain(0, 1, 4, 1), 0, "order"),
        (Chain(0, 2, 4, 1), -1, "expected pooling or a convolution"),
    ],
)
def test_what_can_be_no_chain(chain: Chain, behind: int, text: str) -> None:
    program = compile(split_ends(), tune="off", threads=1).program
    assert text in str(chain_refusal(chain, program, behind))


def test_what_is_read_behind_can_be_no_chain() -> None:
    net = Net({"x": (1, 4, 40, 40)})
    a = net.conv("x", 8, 4)
    b = net.conv(a, 8, 8)
    program = compile(net.model(net.add("Sigmoid", b), net.add("Tanh", a)), tune="off", threads=1).program
    assert chain_refusal(Chain(0, 1, 4, 1), program, -1) == "'t0' is read behind it"


@pytest.mark.parametrize(
    "said, text",
    [
        ("[{first: conv0, last: conv9, rows: 4}]", "no 'conv9'"),
        ("[{first: conv2, last: conv0, rows: 4}]", "order"),
        ("[{first: conv0, last: conv2, rows: 0}]", "rows 0"),
        ("[{first: conv0, last: conv2}]", "depth_first.0.rows: Field required"),
    ],
)
def test_bad_schedules_are_refused_by_name(said: str, text: str, tmp_path: Path) -> None:
    model = network(["3", "3"])
    session = compile(model, tune="off", threads=1)
    path = tmp_path / "schedule.yaml"
    path.write_text(schedule_text(session.program, 1) + f"depth_first: {said}\n")
    with pytest.raises(ScheduleError, match=re.escape(text)) as error:
        compile(model, tune="off", threads=1, schedule=path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_schedule_without_chains_has_none(tmp_path: Path) -> None:
    session = compile(network(["3"]), tune="off", threads=1)
    program = replace(session.program, chains=(Chain(0, 1, 4, 1),))
    assert "depth_first" in schedule_text(program, 1) and "depth_first" not in schedule_text(session.program, 1)
