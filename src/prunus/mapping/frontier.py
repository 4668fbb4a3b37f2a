"""What a network could have at which time: the exact choice at several budgets, from dense to the fastest there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from prunus.mapping.knapsack import least_loss
from prunus.mapping.options import Sources, full_space
from prunus.mapping.rules import Terms, rule_0_stays, rule_1_depthwise
from prunus.mapping.search import Accuracy, Mapping, fastest
from prunus.mapping.space import Space

POINTS = 8


@final
@dataclass(frozen=True)
class Point:
    """A mapping of least loss for its time. ms: predicted. zeros: share of the weights of layers that can be pruned.
    loss: sum of sensitivities. accuracy: after a quick retraining, None where nothing was trained."""

    ms: float
    dense_ms: float
    zeros: float
    loss: float
    accuracy: float | None


def space_to_explore(sources: Sources, terms: Terms) -> Space:
    """Everything that beats dense, of the layers that rules don't leave alone."""
    return full_space(sources, terms.sparsities, lambda site: rule_1_depthwise(site) or rule_0_stays(site, terms))


def frontier_of(
    space: Space, accuracy: Accuracy | None = None, n: int = POINTS, progress: Callable[[str], None] = lambda step: None
) -> list[Point]:
    """At most `n` mappings, slowest first, at times that are equally many times apart; alike ones once."""
    least, dense = space.ms(fastest(space)), space.dense_ms
    budgets = [max(dense * (least / dense) ** (i / (n - 1)), least) for i in range(n)]
    mappings = dict.fromkeys(least_loss(space, budget) for budget in budgets)
    points = []
    for i, mapping in enumerate(mappings):
        progress(f"frontier, mapping {i + 1} of {len(mappings)}")
        points.append(_point(space, mapping, accuracy))
    return points


def _point(space: Space, mapping: Mapping, accuracy: Accuracy | None) -> Point:
    chosen = space.chosen(mapping)
    return Point(
        space.ms(mapping), space.dense_ms, _zeros(space, [option.sparsity for option in chosen]),
        sum(option.loss or 0.0 for option in chosen), None if accuracy is None else accuracy(mapping),
    )  # fmt: skip


def _zeros(space: Space, sparsities: Sequence[float]) -> float:
    sizes = [layer.n_weights * (len(layer.options) > 1) for layer in space.layers]
    zeros = sum(size * sparsity for size, sparsity in zip(sizes, sparsities, strict=True))
    return zeros / sum(sizes) if sum(sizes) else 0.0
