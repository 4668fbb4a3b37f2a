"""Who takes turns when, and what the statistics say."""

import gc
import threading
import time
from collections import Counter

import numpy as np
import pytest

from prunus.benchmark.timing import LEAST_ROUNDS, Times, speed_ratio, time_interleaved, turn_order


def times(rounds: list[float]) -> Times:
    return Times(np.array(rounds), np.array(rounds))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_each_is_in_each_place_equally_often(n: int) -> None:
    names = [str(i) for i in range(n)]
    places = Counter((name, place) for i in range(2 * n) for place, name in enumerate(turn_order(names, i)))
    assert set(places.values()) == {2}
    assert len(places) == n * n


def test_ratio_is_paired_within_rounds() -> None:
    slow, fast = times([2.0, 20.0, 200.0, 2.0]), times([1.0, 10.0, 100.0, 4.0])
    ratio = speed_ratio(fast, slow)
    assert (ratio.lower, ratio.median, ratio.upper) == (1.625, 2.0, 2.0)
    assert speed_ratio(slow, fast).median == 0.5
    own = speed_ratio(slow, slow)
    assert (own.lower, own.median, own.upper) == (1, 1, 1)


def test_statistics_are_of_calls() -> None:
    t = Times(np.arange(1, 12, dtype=float), np.array([6.0]))
    assert (t.median_s, t.p90_s, t.min_s) == (6.0, 10.0, 1.0)


def test_interleaved() -> None:
    log: list[str] = []
    collecting: set[bool] = set()

    def call(name: str, seconds: float) -> None:
        log.append(name)
        collecting.add(gc.isenabled())
        time.sleep(seconds)

    calls = {"a": lambda: call("a", 0.004), "b": lambda: call("b", 0.012)}
    found = time_interleaved(calls, time_s=0.0, warmup_s=0.0, pause_s=0.0)
    assert list(found) == ["a", "b"]
    assert len(found["a"].rounds) == len(found["b"].rounds) == LEAST_ROUNDS
    assert 1.5 < speed_ratio(found["a"], found["b"]).median < 6
    assert found["b"].min_s >= 0.012
    assert gc.isenabled()
    assert collecting == {True, False}  # on in the warm-up only
    turns = [name for i, name in enumerate(log) if i == 0 or log[i - 1] != name]
    assert len(turns) > LEAST_ROUNDS, "turns alternate"


def test_callers_run_at_the_same_time() -> None:
    """A round's time per inference is that of all callers together; calls are timed one by one."""
    meeting = threading.Barrier(2, timeout=60)  # broken where calls come one after the other
    found = time_interleaved({"a": meeting.wait}, time_s=0.0, warmup_s=0.0, pause_s=0.0, callers=2)
    assert len(found["a"].calls) >= 2 * len(found["a"].rounds)

    def slow() -> None:
        time.sleep(0.06)

    found = time_interleaved({"a": slow}, time_s=0.0, warmup_s=0.0, pause_s=0.0, callers=3)
    assert found["a"].min_s >= 0.06
    assert len(found["a"].calls) == 3 * LEAST_ROUNDS
    assert found["a"].rounds.min() >= 0.06 / 3
    assert found["a"].per_second == pytest.approx(1 / np.median(found["a"].rounds))


def test_garbage_collector_is_back_after_a_failure() -> None:
    count = iter(range(10))

    def fails() -> None:
        if next(count) > 3:
            raise ValueError

    with pytest.raises(ValueError):
        time_interleaved({"a": fails}, 0.1, 0.0)
    assert gc.isenabled()
