"""Layers are timed with threads that are awake, as they are inside a network."""

import pytest

from prunus.compiler.compile import compile
from prunus.runtime.native import Bound, Pool
from tests.runtime.networks import NETWORKS


def test_threads_are_awake_before_each_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    gather, run = Pool.gather, Bound.run
    monkeypatch.setattr("prunus.compiler.compile.latencies_for", lambda *_: None)
    monkeypatch.setattr(Pool, "gather", lambda pool: (order.append("gather"), gather(pool))[1])
    monkeypatch.setattr(Bound, "run", lambda bound, *a: (order.append("run"), run(bound, *a))[1])
    compile(NETWORKS["residual"](), threads=2)
    assert order and order == ["gather", "run"] * (len(order) // 2)
