"""Masks by rank: every goal by its own sparsity, or all by one, shared out over the layers."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import box_sizes, energy, reduce_boxes
from prunus.sparsity.rank import top_weight
from prunus.training.goals import Goal
from prunus.training.groups import grids
from prunus.training.scores import Scores

Bools = NDArray[np.bool_]
LEAST_DENSITY = 0.01  # of a layer under a global ranking: it would otherwise vanish, and the network with it


def rank(
    goals: Sequence[Goal], scores: Scores, scope: Literal["layer", "global"], share: float = 1.0, start: float = 0.0
) -> dict[str, Bools]:
    """The masks of all goals that have a sparsity; `share` of the way there from `start`."""
    known = [goal for goal in goals if goal.sparsity is not None]
    arrays = {goal.name: scores.of(goal.layer) for goal in known}
    final = allocate(known, arrays) if scope == "global" else {g.name: g.sparsity or 0.0 for g in known}
    wanted = {name: sparsity + (min(start, sparsity) - sparsity) * (1 - share) for name, sparsity in final.items()}
    return {goal.name: goal.mask(arrays[goal.name], wanted[goal.name]) for goal in known}


def allocate(goals: Sequence[Goal], scores: dict[str, NDArray[Any]]) -> dict[str, float]:
    """A sparsity per goal, by name, such that the groups of all layers compete for what the goals keep together.

    A group counts by the root mean square of its scores relative to that of its layer: layers differ in scale.
    """
    if not goals:
        return {}
    kept = sum((1 - (goal.sparsity or 0.0)) * scores[goal.name].size for goal in goals)
    values, extents, owners = [], [], []
    for index, goal in enumerate(goals):
        array = scores[goal.name]
        squares = energy(array.reshape(-1))
        scale = float(squares.mean()) or 1.0
        grid = grids(array.shape, goal.scheme)[0]
        n_in_box = np.broadcast_to(
            box_sizes(grid), reduce_boxes(energy(array.reshape(grid.view)), np.add, grid.box).shape
        )
        sums = reduce_boxes(energy(array.reshape(grid.view)), np.add, grid.box)
        values.append((sums / n_in_box / scale).ravel())
        extents.append(n_in_box.ravel())
        owners.append(np.full(sums.size, index))
    score, size, owner = np.concatenate(values), np.concatenate(extents), np.concatenate(owners)
    keep = top_weight(score, size.astype(np.int64), kept)
    found = {}
    for index, goal in enumerate(goals):
        density = float(size[keep & (owner == index)].sum() / scores[goal.name].size)
        found[goal.name] = 1 - max(density, LEAST_DENSITY)
    return found
