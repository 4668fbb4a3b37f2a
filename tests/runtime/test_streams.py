"""Calls at the same time: as many as there are streams, with one copy of the weights."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.runtime.session import Session, check_threads
from prunus.runtime.streams import Turns
from tests.runtime.networks import NETWORKS, feeds_for, residual
from tests.runtime.test_session import IMAGE, resizable

WAIT_S = 60  # of a test that fails; one that passes waits for nothing


def at_once(call: Callable[[], object], callers: int) -> None:
    """Run `call` in several threads."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> threading.Barrier:
    """Where two inferences meet while they run; broken when one is kept from running."""
    barrier, execute = threading.Barrier(2, timeout=WAIT_S), Session._execute

    def met(self: Session, *arguments: Any) -> Any:
        barrier.wait()
        return execute(self, *arguments)

    monkeypatch.setattr(Session, "_execute", met)
    return barrier


def test_two_run_at_once_on_the_same_constants(meeting: threading.Barrier) -> None:
    session = prunus.compile(residual("N"), tune="off", threads=2, streams=2)
    before = session.memory()
    at_once(lambda: session.run(None, feeds_for(residual(), 3)), 2)
    one, two = (stream.bound for stream in session._all)
    assert one is not None and two is not None
    assert one.constants is two.constants is session.constants
    assert one.plan is two.plan
    assert not np.shares_memory(one.arena, two.arena)
    assert before["arena"] == 0
    arenas = one.arena.nbytes + one.scratch.nbytes + two.arena.nbytes + two.scratch.nbytes
    assert session.memory() == {**before, "arena": arenas}


def test_an_image_of_another_size_has_as_many_streams(meeting: threading.Barrier) -> None:
    session = prunus.compile(resizable(), tune="off", threads=1, streams=2, input_shapes=IMAGE)
    at_once(lambda: session.run(None, {"x": np.ones((1, 3, 7, 20), np.float32)}), 2)


def test_one_caller_opens_one_arena() -> None:
    session, alone = (prunus.compile(residual(), tune="off", threads=1, streams=n) for n in (3, 1))
    for _ in range(4):
        np.testing.assert_array_equal(
            session.run(None, feeds_for(residual()))[0], alone.run(None, feeds_for(residual()))[0]
        )
    assert session.memory() == alone.memory()


@pytest.mark.parametrize("name", NETWORKS)
def test_more_callers_than_streams(name: str) -> None:
    """Answers don't depend on who else runs, partitions included, and profiles may be taken meanwhile."""
    model = NETWORKS[name]("N")
    session = prunus.compile(model, tune="off", threads=2, streams=2)
    alone = prunus.compile(model, tune="off", threads=1)
    cases = [(feeds := feeds_for(model, 1 + i % 3, seed=i), alone.run(None, feeds)) for i in range(4)]

    def work() -> None:
        for feeds, wanted in cases * 3:
            for got, expected in zip(session.run(None, feeds), wanted, strict=True):
                np.testing.assert_array_equal(got, expected)
        assert all(row.ms >= 0 for row in session.profile(cases[0][0], rounds=1))

    at_once(work, 5)


def test_turns() -> None:
    """A thing is one caller's at a time, the one put back last is next, and a failure puts it back too."""
    turns, lock, out = Turns(["pear", "quince"]), threading.Lock(), set[str]()

    def work() -> None:
        for _ in range(200):
            with turns.take() as thing:
                with lock:
                    assert thing not in out
                    out.add(thing)
                with lock:
                    out.remove(thing)

    at_once(work, 6)
    with pytest.raises(ValueError, match="pit"), turns.take() as first:
        raise ValueError("pit")
    with turns.take() as again, turns.take() as other:
        assert (again, other) == (first, "pear" if first == "quince" else "quince")


def test_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.runtime.session.physical_cores", lambda: 8)
    assert [check_threads(None, n) for n in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert check_threads(5, 4) == 5
