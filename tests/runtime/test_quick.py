"""The short way of a call: the same results and errors as the long one."""

import threading
from typing import Any

import numpy as np
import pytest

from prunus.compiler.compile import compile
from prunus.errors import FeedError
from prunus.runtime.session import Session
from tests.graph.recurrent import Case
from tests.runtime.networks import residual


def small() -> tuple[Session, dict[str, Any]]:
    model, feeds = Case("GRU", t=2, n=2, i=3, h=20, states="given").build()
    return compile(model, tune="off", threads=1), feeds


def test_as_the_long_way() -> None:
    session, feeds = small()
    names = [port.name for port in session.get_outputs()]
    long = session.run(names, feeds)
    assert session._all[0].quick is not None
    for a, b in zip(long, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_outputs_are_the_callers() -> None:
    session, feeds = small()
    session.run(None, feeds)
    first = session.run(None, feeds)
    kept = [array.copy() for array in first]
    session.run(None, {name: array * 2 for name, array in feeds.items()})
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_feeds_of_any_layout() -> None:
    session, feeds = small()
    expected = session.run(None, feeds)
    strided = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in feeds.items()}
    for a, b in zip(expected, session.run(None, strided), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda feeds: feeds.pop("x"), "'x' is missing"),
        (lambda feeds: feeds.update(z=feeds.pop("x")), "input 'z'"),
        (lambda feeds: feeds.update(more=feeds["x"]), "input 'more'"),
        (lambda feeds: feeds.update(x=feeds["x"].astype(np.float64)), "dtype float64, expected float32"),
        (lambda feeds: feeds.update(x=feeds["x"][..., :2]), "shape"),
    ],
)
def test_errors_as_before(change: Any, message: str) -> None:
    session, feeds = small()
    session.run(None, feeds)
    change(feeds)
    with pytest.raises(FeedError, match=message):
        session.run(None, feeds)


def test_another_batch_and_back() -> None:
    session = compile(residual("n"), tune="off", threads=1)
    x = np.random.default_rng(0).standard_normal((3, 3, 10, 9)).astype(np.float32)
    alone = [session.run(None, {"x": x[i : i + 1]})[0] for i in range(3)]
    together = session.run(None, {"x": x})[0]
    np.testing.assert_array_equal(session.run(None, {"x": x[:1]})[0], alone[0])
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_several_callers() -> None:
    session, feeds = small()
    expected = {k: session.run(None, {n: a * np.float32(k) for n, a in feeds.items()}) for k in (1, 2, 3)}
    wrong: list[int] = []

    def call(k: int) -> None:
        fed = {name: array * np.float32(k) for name, array in feeds.items()}
        for _ in range(300):
            if not all(np.array_equal(a, b) for a, b in zip(session.run(None, fed), expected[k], strict=True)):
                wrong.append(k)

    callers = [threading.Thread(target=call, args=(k,)) for k in expected]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
