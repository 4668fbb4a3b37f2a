"""Masks by rank: every goal by its own sparsity, or all by one, shared out over the layers."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import box_sizes, energy, reduce_boxes
from prunus.sparsity.rank import top_weight
from prunus.sparsity.schemes import SCHEMES
from prunus.training.goals import Goal
from prunus.training.groups import grids
from prunus.training.scores import Scores

Bools = NDArray[np.bool_]
LEAST_DENSITY = 0.01  # of a layer under a global ranking: it would otherwise vanish, and the network with it


def rank(
    goals: Sequence[Goal], scores: Scores, scope: Literal["layer", "global"], share: float = 1.0, start: float = 0.0
) -> dict[str, Bools]:
    """The masks of all goals that have a sparsity; `share` of the way there from `start`, or from where they are."""
    known = [goal for goal in goals if goal.sparsity is not None]
    arrays = {goal.name: scores.of(goal.layer) for goal in known}
    final = sparsities(known, arrays, scope)
    wanted = dict[str, float]()
    for goal in known:
        least, sparsity = max(start, goal.start), final[goal.name]
        wanted[goal.name] = sparsity + (min(least, sparsity) - sparsity) * (1 - share)
    return {goal.name: goal.mask(arrays[goal.name], wanted[goal.name]) for goal in known}


def sparsities(
    goals: Sequence[Goal], scores: dict[str, NDArray[Any]], scope: Literal["layer", "global"]
) -> dict[str, float]:
    """What each goal with a sparsity is to reach, by name."""
    known = [goal for goal in goals if goal.sparsity is not None]
    return allocate(known, scores) if scope == "global" else {goal.name: goal.sparsity or 0.0 for goal in known}


def allocate(goals: Sequence[Goal], scores: dict[str, NDArray[Any]]) -> dict[str, float]:
    """A sparsity per goal, by name, such that the groups of all layers compete for what the goals keep together.

    A group counts by the root mean square of its scores relative to that of its layer: layers differ in scale. A layer
    can't get more than its scheme or its base permits, nor less than LEAST_DENSITY; n:m has no choice. What such layers
    leave is shared out among the others.
    """
    found = {goal.name: goal.sparsity or 0.0 for goal in goals if SCHEMES[goal.scheme.name].fixed}
    open_goals = [goal for goal in goals if goal.name not in found and scores[goal.name].size]
    kept = sum((1 - (goal.sparsity or 0.0)) * scores[goal.name].size for goal in open_goals)
    while open_goals:
        densities = _compete(open_goals, scores, kept)
        bounds = {goal.name: _bounds(goal) for goal in open_goals}
        beyond = {name: float(np.clip(d, *bounds[name])) - d for name, d in densities.items()}
        # only one side at a time: giving back what some can't take lifts those that have too little
        excess = sum(-change * scores[name].size for name, change in beyond.items())
        settled = {name for name, change in beyond.items() if (change < 0 if excess >= 0 else change > 0)}
        if not settled:
            settled = set(densities)
        for name in settled:
            density = densities[name] + beyond[name]
            found[name] = 1 - density
            kept -= density * scores[name].size
        open_goals = [goal for goal in open_goals if goal.name not in settled]
    return {goal.name: found.get(goal.name, goal.sparsity or 0.0) for goal in goals}


def _bounds(goal: Goal) -> tuple[float, float]:
    """The densities that a goal may get."""
    most = min(SCHEMES[goal.scheme.name].densest(goal.scheme), goal.densest)
    return min(LEAST_DENSITY, 1 - (goal.sparsity or 0.0), most), most


def _compete(goals: Sequence[Goal], scores: dict[str, NDArray[Any]], kept: float) -> dict[str, float]:
    """The density of each goal if the best groups of all stay, `kept` weights together."""
    values, extents, owners = [], [], []
    for index, goal in enumerate(goals):
        array = scores[goal.name]
        squares = energy(array)
        scale = float(squares.mean()) or 1.0
        grid = grids(array.shape, goal.scheme)[0]
        sums = reduce_boxes(squares.reshape(grid.view), np.add, grid.box)
        size = np.broadcast_to(box_sizes(grid), sums.shape)
        values.append((sums / size / scale).ravel())
        extents.append(size.ravel() * _kept_of_group(goal))
        owners.append(np.full(sums.size, index))
    score, size, owner = np.concatenate(values), np.concatenate(extents), np.concatenate(owners)
    # in units of a 1024th of a weight: groups that can stay in part only aren't whole numbers
    keep = top_weight(score, np.round(size * 1024).astype(np.int64), max(kept, 0.0) * 1024)
    share = np.bincount(owner, weights=np.where(keep, size, 0.0), minlength=len(goals))
    return {goal.name: float(share[index] / scores[goal.name].size) for index, goal in enumerate(goals)}


def _kept_of_group(goal: Goal) -> float:
    """How much of a group that stays is kept: of a pattern's kernel its few positions, of others what `base` left."""
    return min(SCHEMES[goal.scheme.name].densest(goal.scheme), goal.densest)
