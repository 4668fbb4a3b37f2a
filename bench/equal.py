"""Times at equal accuracy, along frontiers of measured networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TIE = 0.002  # accuracies that count as equal: 0.2 points


@dataclass(frozen=True)
class Point:
    """A network: milliseconds and test accuracy as a fraction, means over seeds."""

    name: str
    ms: float
    accuracy: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def ms_at(points: Sequence[Point], accuracy: float) -> float | None:
    """The time at which a frontier has an accuracy: between two of its networks the logarithm of time is linear in
    accuracy. Below the fastest one it is the fastest one's; above the best one it is that one's where it is as accurate
    up to TIE, else None."""
    line = frontier(points)
    if not line or accuracy > line[-1].accuracy + TIE:
        return None
    if accuracy >= line[-1].accuracy:
        return line[-1].ms
    after = next(i for i, point in enumerate(line) if point.accuracy >= accuracy)
    if after == 0:
        return line[0].ms
    low, high = line[after - 1], line[after]
    share = (accuracy - low.accuracy) / (high.accuracy - low.accuracy)
    return math.exp((1 - share) * math.log(low.ms) + share * math.log(high.ms))
