"""What ways to search share: how good a mapping is against a budget of time, and the best one seen.

An accuracy is a function from a mapping to a fraction of right answers; `evaluate` has the one that trains a little.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from prunus.errors import BudgetError
from prunus.mapping.knapsack import SLACK, at_least
from prunus.mapping.space import DENSE, LayerSpace, Option, Space

Mapping = tuple[int, ...]  # the index of an option per layer
Accuracy = Callable[[Mapping], float]

SLOWER = 0.1  # reward lost per time over budget, as a fraction of it: 10 % over costs a point
KEPT = 1e-6  # relative, by which the exact choice may be over: it still keeps the budget
# Source of the hinge: Li et al., "NPAS", CVPR 2021, arXiv:2012.00596


@final
@dataclass(frozen=True)
class Found:
    """A mapping that was tried. accuracy: fraction. ms: predicted for the network."""

    mapping: Mapping
    accuracy: float
    ms: float

    def reward(self, budget_ms: float) -> float:
        """Accuracy, minus what time over budget costs."""
        return self.accuracy - SLOWER * max(0.0, self.ms / budget_ms - 1)


@final
@dataclass(frozen=True)
class Progress:
    """How far a search is: `done` of `total` mappings tried."""

    done: int
    total: int
    best: Found | None

    def __str__(self) -> str:
        said = f"mapping {self.done} of {self.total}"
        return said if self.best is None else f"{said}, best {self.best.accuracy:.2%} in {self.best.ms:.4g} ms"


def best_of(tried: Sequence[Found], budget_ms: float) -> Found | None:
    """The most accurate one within the budget, of equal ones the fastest; where none is within, that of most reward."""
    if not tried:
        return None
    within = [found for found in tried if found.ms <= budget_ms * (1 + KEPT)]
    return max(
        within or tried, key=lambda f: (f.reward(budget_ms), -f.ms, f.accuracy, tuple(-index for index in f.mapping))
    )


def check_budget(space: Space, budget_ms: float) -> None:
    """Can any mapping keep the budget?

    Raises BudgetError: none can; says the least time.
    """
    least = space.ms(fastest(space))
    if not budget_ms * (1 + SLACK) >= least:
        raise BudgetError(
            f"budget {budget_ms:.4g} ms: the fastest mapping takes {at_least(least)} ms, expected at least that"
        )


def fastest(space: Space) -> Mapping:
    """Each layer's fastest option, of equal ones the first."""
    return tuple(min(range(len(layer.options)), key=lambda i, o=layer.options: o[i].ms) for layer in space.layers)  # type: ignore[misc]


def narrowed(space: Space, start: Mapping) -> tuple[Space, Mapping]:
    """The space without options that another one of the same kind of scheme beats in loss and time, and `start`, whose
    options stay, in it. Where losses aren't known, nothing goes."""
    layers, places = [], []
    for layer, chosen in zip(space.layers, start, strict=True):
        kept = [i for i, option in enumerate(layer.options) if i in (DENSE, chosen) or not _beaten(option, layer)]
        places.append(kept.index(chosen))
        layers.append(replace(layer, options=tuple(layer.options[i] for i in kept)))
    return replace(space, layers=tuple(layers)), tuple(places)


def _beaten(option: Option, layer: LayerSpace) -> bool:
    """By one that is no worse in both and better in one."""
    if option.loss is None or option.scheme is None:
        return False
    kind, mine = option.scheme.partition(":")[0], (option.loss, option.ms)
    rivals = (o for o in layer.options if o.loss is not None and o.scheme and o.scheme.partition(":")[0] == kind)
    theirs = ((rival.loss, rival.ms) for rival in rivals)
    return any(loss <= mine[0] and ms <= mine[1] and (loss, ms) != mine for loss, ms in theirs if loss is not None)


def described(space: Space, mapping: Sequence[int]) -> dict[str, str]:
    """What becomes of each weight that doesn't stay dense, as text: {"conv1.weight": "bcr:8x64 0.9"}."""
    pairs = zip(space.layers, space.chosen(mapping), strict=True)
    return {layer.weight: f"{o.scheme} {o.sparsity:g}" for layer, o in pairs if o.scheme is not None}


def labels(space: Space) -> list[list[str]]:
    """What the options of each layer are called; no two of a layer alike."""
    made = []
    for layer in space.layers:
        names = [f"{o.scheme} {o.sparsity:g}" if o.scheme is not None else "dense" for o in layer.options]
        assert len(set(names)) == len(names), f"{layer.name}: two options are the same"
        made.append(names)
    return made


def digest(value: object) -> str:
    """16 letters that stand for a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
