"""What an audit found, as plain data: success rates by eps and model, by whose perturbation, by class."""

import math
from dataclasses import dataclass
from typing import final

Z = 1.96  # of a normal distribution: 95 % lie within


@final
@dataclass(frozen=True)
class Rate:
    """A share of n images with its 95 % interval (Wilson)."""

    share: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.low:.1%}..{self.high:.1%})"


def rate(hits: int, n: int) -> Rate:
    """hits of n; of none 0, from 0 to 1."""
    if n == 0:
        return Rate(0.0, 0.0, 1.0, 0)
    p, z = hits / n, Z * Z / n
    middle, half = (p + z / 2) / (1 + z), Z / (1 + z) * math.sqrt(p * (1 - p) / n + z / (4 * n))
    return Rate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)


@final
@dataclass(frozen=True)
class Point:
    """The strongest perturbation of a size: how often it fools, which attack made it, and on which model."""

    eps: float
    success: Rate
    attack: str
    made_on: str


@final
@dataclass(frozen=True)
class ClassRow:
    """Images of one class that are answered rightly when clean: how many are fooled, and into what mostly."""

    label: int
    name: str
    success: Rate
    becomes: str


@final
@dataclass(frozen=True)
class Difference:
    """Success rate minus that of the first model, on images that both answer rightly, with its 95 % interval."""

    share: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class ModelReport:
    """One model. how: "gradients" or "queries". accuracy: of clean images. images, gradients: how many were answered,
    and of how many a gradient was taken, to attack it. passes: None without a gate."""

    name: str
    how: str
    accuracy: Rate
    curve: tuple[Point, ...]
    at_eps: Point
    floor: Rate
    classes: tuple[ClassRow, ...]
    against_first: Difference | None
    images: int
    gradients: int
    seconds: float
    passes: bool | None


@final
@dataclass(frozen=True)
class Report:
    """transfer: success at eps of the perturbation made on a model (row) against each model (column). failure: why it
    ended early, "" where it didn't."""

    data: str
    norm: str
    eps: float
    low: float
    high: float
    target: int | None
    gate: float | None
    n_fit: int
    n_choose: int
    n_judge: int
    models: tuple[ModelReport, ...]
    transfer: tuple[tuple[float, ...], ...]
    notes: tuple[str, ...]
    seconds: float
    failure: str = ""

    @property
    def passes(self) -> bool:
        """No model is over the gate, and all were audited."""
        return not self.failure and all(model.passes is not False for model in self.models)


def notes_on(models: tuple[ModelReport, ...]) -> tuple[str, ...]:
    """What should make a reader doubt the numbers.
    Source: Carlini et al., 2019, arXiv:1902.06705, on gradients that mislead."""
    found = []
    for model in models:
        if model.accuracy.share < 0.5:
            found.append(
                f"{model.name} answers {model.accuracy.share:.0%} of clean images rightly: what fools it says little"
            )
        first, last = model.curve[0].success, model.curve[-1].success
        if model.curve[-1].eps > model.curve[0].eps and last.share <= first.share and last.share < 0.9:
            found.append(
                f"{model.name}: larger perturbations don't fool it more often: its gradients may mislead the attack"
            )
        if model.floor.share > model.at_eps.success.share:
            found.append(f"{model.name}: random signs fool it more often than the attacks do")
        if model.floor.share > 0.75 * model.at_eps.success.share and model.floor.share > 0.05:
            found.append(
                f"{model.name}: random signs of that size fool it nearly as often: it is weak against any noise"
            )
    return tuple(found)
