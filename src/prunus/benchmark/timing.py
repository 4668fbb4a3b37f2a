"""Interleaved timing: callables take turns within each round, so that drift and neighbours hit all
alike. Nothing here sets threads.
"""

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

TURN_S = 0.05  # one turn times as many calls as fill this, at least one
LEAST_ROUNDS = 7  # fewer give no quartiles worth the name


@final
@dataclass(frozen=True, eq=False)
class Times:
    """Seconds of each timed call; and of each round, in order, seconds per inference: the median of its calls, or with
    several callers at the same time the round's seconds over its calls.
    """

    calls: NDArray[np.float64]
    rounds: NDArray[np.float64]

    @property
    def median_s(self) -> float:
        return float(np.median(self.calls))

    @property
    def p90_s(self) -> float:
        return float(np.percentile(self.calls, 90))

    @property
    def min_s(self) -> float:
        return float(self.calls.min())

    @property
    def per_second(self) -> float:
        """Inferences per second, of all callers together."""
        return 1 / float(np.median(self.rounds))


@final
@dataclass(frozen=True)
class Ratio:
    """How many times as fast as another: the median over rounds of the ratio within a round, and
    its quartiles, which tell how far to trust it.
    """

    median: float
    lower: float
    upper: float


def speed_ratio(own: Times, other: Times) -> Ratio:
    """`own` against `other` of the same run: above 1, `own` is faster."""
    return ratio_of_rounds(own.rounds, other.rounds)


def ratio_of_rounds(own: NDArray[np.float64], other: NDArray[np.float64]) -> Ratio:
    """As `speed_ratio`, of the times of rounds, in order, in any one unit."""
    lower, median, upper = np.percentile(other / own, [25, 50, 75]).tolist()
    return Ratio(median, lower, upper)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    time_s: float = 5.0,
    warmup_s: float = 1.0,
    pause_s: float = 0.1,
    progress: Callable[[str], None] | None = None,
    callers: int = 1,
) -> dict[str, Times]:
    """Times of each callable, from about `time_s` seconds of calls each, at least 7 rounds.

    A turn is a pause (another engine's threads spin for a while after a call), one untimed call, and the
    timed ones. The order rotates from round to round, and reverses in every other cycle. The
    garbage collector rests meanwhile. With several `callers`, each has as many calls in a turn, in
    a thread of its own.
    """
    if callers > 1:
        with ThreadPoolExecutor(callers) as crowd:
            return _interleave(calls, time_s, warmup_s, pause_s, progress, partial(_time_crowd, crowd, callers))
    return _interleave(calls, time_s, warmup_s, pause_s, progress, _time_turn)


Turn = tuple[NDArray[np.float64], float]  # seconds of each call, and per inference


def _interleave(
    calls: Mapping[str, Callable[[], object]],
    time_s: float,
    warmup_s: float,
    pause_s: float,
    progress: Callable[[str], None] | None,
    time_turn: Callable[[Callable[[], object], int], Turn],
) -> dict[str, Times]:
    names = list(calls)
    least = {name: _warm_up(calls[name], warmup_s, time_turn) for name in names}
    counts = {name: max(1, round(TURN_S / least[name])) for name in names}
    turn_s = max((least[name] * counts[name] for name in names), default=TURN_S)
    n_rounds = max(LEAST_ROUNDS, math.ceil(time_s / turn_s))
    spent: dict[str, list[Turn]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i in range(n_rounds):
            if progress is not None:
                progress(f"round {i + 1} of {n_rounds}")
            for name in turn_order(names, i):
                time.sleep(pause_s)
                time_turn(calls[name], 1)
                spent[name].append(time_turn(calls[name], counts[name]))
    finally:
        if collecting:
            gc.enable()
    return {
        name: Times(np.concatenate([seconds for seconds, _ in turns]), np.array([each for _, each in turns]))
        for name, turns in spent.items()
    }


def turn_order(names: list[str], i: int) -> list[str]:
    """Who goes when in round `i`: over 2 len(names) rounds each is in each place equally often."""
    cycle, start = divmod(i, len(names))
    order = names[start:] + names[:start]
    return order[::-1] if cycle % 2 else order


def _warm_up(
    call: Callable[[], object], warmup_s: float, time_turn: Callable[[Callable[[], object], int], Turn]
) -> float:
    """Seconds of the fastest call of the warm-up, which has two turns at least."""
    time_turn(call, 1)
    least, start = math.inf, time.perf_counter()
    while math.isinf(least) or time.perf_counter() - start < warmup_s:
        least = min(least, float(time_turn(call, 1)[0].min()))
    return max(least, 1e-7)


def _time_turn(call: Callable[[], object], count: int) -> Turn:
    seconds = _time_calls(call, range(count))
    return seconds, float(np.median(seconds))


def _time_crowd(crowd: ThreadPoolExecutor, callers: int, call: Callable[[], object], count: int) -> Turn:
    """As `_time_turn`, of `callers` threads that share out `callers * count` calls."""
    tickets = iter(range(callers * count))
    start = time.perf_counter()
    seconds = np.concatenate(list(crowd.map(lambda _: _time_calls(call, tickets), range(callers))))
    return seconds, (time.perf_counter() - start) / (callers * count)


def _time_calls(call: Callable[[], object], tickets: Iterable[int]) -> NDArray[np.float64]:
    """Seconds of each call, one per ticket."""
    seconds = []
    for _ in tickets:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)
