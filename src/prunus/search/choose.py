"""Which channels live, chosen without training: what Pruning-as-Search is compared with; and budgets met exactly.

"bn-gamma" and "uniform" are the baselines in the code of Li et al., "Pruning-as-Search", IJCAI 2022, arXiv:2206.01198;
the first is due to Liu et al., "Network Slimming", ICCV 2017, arXiv:1708.06519.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunus.errors import ShrinkError
from prunus.search.branches import Branches
from prunus.search.costs import Cost
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.importance import importance
from prunus.training.shrink.widths import strides

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def cost(of: Cost, keep: Bools) -> float:
    """As a share of the whole network's."""
    with torch.no_grad():
        return float(of(torch.from_numpy(keep.astype(np.float32))))


def amount(of: Cost, share: float, up: bool = False) -> str:
    """A share as users name it: milliseconds of a time, else the share itself. up: to the next ten-thousandth."""
    value = share * of.whole if of.unit == "ms" else share
    value = float(np.ceil(value * 1e4) / 1e4) if up else value
    return f"{value:.4g} ms" if of.unit == "ms" else f"{value:g}"


def by_scores(groups: Groups, scores: Floats, of: Cost, budget: float, least: int = 1) -> Bools:
    """bool[groups.n]: the groups of the highest scores in the whole network, as many as the budget allows; of every
    bundle at least `least`.

    Raises ShrinkError: the floor costs more than the budget.
    """
    held = np.zeros(groups.n, bool)
    for members in groups.bundles:
        held[members[np.argsort(-scores[members], kind="stable")[:least]]] = True
    floor = cost(of, held)
    if floor > budget:
        raise ShrinkError(
            f"budget {amount(of, budget)}: can't be reached, expected at least {amount(of, floor, up=True)}, which is "
            f"{least} channel{'s' * (least > 1)} in each layer"
        )
    order = np.argsort(np.where(held, np.inf, scores), kind="stable")[: int((~held).sum())]  # the least first
    low, high = 0, len(order)  # how many go: low too few, high enough
    while low < high:
        middle = (low + high) // 2
        keep = np.ones(groups.n, bool)
        keep[order[:middle]] = False
        low, high = (low, middle) if cost(of, keep) <= budget else (middle + 1, high)
    keep = np.ones(groups.n, bool)
    keep[order[:low]] = False
    return _fill(keep, order[:low][::-1], of, budget)


def _fill(keep: Bools, candidates: NDArray[np.int64], of: Cost, budget: float) -> Bools:
    """One group costs more than another: take back those that still fit, the best first."""
    for group in candidates[:200].tolist():
        keep[group] = True
        if cost(of, keep) > budget:
            keep[group] = False
    return keep


def rounded(groups: Groups, scores: Floats, keep: Bools, of: Cost, budget: float, round_to: int) -> Bools:
    """bool[groups.n]: like `keep`, in widths of multiples of `round_to` channels, or of a half, a quarter, ... of it
    where a bundle is narrower than twice that: down first, then up where it fits, the best first.

    Raises ShrinkError: as `by_scores`.
    """
    steps = strides(groups, round_to)
    order = [members[np.argsort(-scores[members], kind="stable")] for members in groups.bundles]
    widths = np.array([int(keep[members].sum()) for members in groups.bundles], np.int64)
    widths = np.maximum(widths // steps, 1) * steps
    found = _widest(groups, order, widths)
    if cost(of, found) > budget:  # bundles that were narrower than a step
        widths = steps
        found = _widest(groups, order, widths)
    if (floor := cost(of, found)) > budget:
        raise ShrinkError(
            f"budget {amount(of, budget)}: can't be reached in steps of {round_to} channels, expected at least "
            f"{amount(of, floor, up=True)}, or a smaller round_to"
        )
    closed = set[int]()
    while len(closed) < len(order):
        blocks = [
            (
                -1.0
                if bundle in closed
                else float(scores[ids[width : width + step]].mean())
                if width < len(ids)
                else -1.0
            )
            for bundle, (ids, width, step) in enumerate(zip(order, widths.tolist(), steps.tolist(), strict=True))
        ]
        bundle = int(np.argmax(blocks))
        if blocks[bundle] < 0:
            break
        trial = widths.copy()
        trial[bundle] = min(int(trial[bundle] + steps[bundle]), len(order[bundle]))
        if cost(of, wider := _widest(groups, order, trial)) <= budget:
            widths, found = trial, wider
        else:
            closed.add(bundle)
    return found


def _widest(groups: Groups, order: Sequence[NDArray[np.int64]], widths: NDArray[np.int64]) -> Bools:
    """Of each bundle the first of `order`."""
    keep = np.zeros(groups.n, bool)
    for ids, width in zip(order, widths.tolist(), strict=True):
        keep[ids[:width]] = True
    return keep


def uniform(groups: Groups, worth: Floats, of: Cost, budget: float) -> Bools:
    """bool[groups.n]: the same share of each bundle, those of most worth in it.

    Raises ShrinkError: as `by_scores`.
    """
    ranks = np.zeros(groups.n)
    for members in groups.bundles:  # the best of a bundle has 1, and each further one a step less
        ranks[members[np.argsort(-worth[members], kind="stable")]] = 1 - np.arange(len(members)) / len(members)
    return by_scores(groups, ranks, of, budget)


def magnitude(model: nn.Module, groups: Groups) -> Floats:
    """float64[groups.n]: mean squares of the filters, relative to their layers'. model: the merged one."""
    named = {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}
    return importance(groups, {call.weight: named[call.weight] for call in groups.calls})


def bn_gamma(model: nn.Module, merged: nn.Module, groups: Groups) -> Floats:
    """float64[groups.n]: mean |scale| of the BatchNorms of a group's channels; of Branches those of the convolutions
    together. Groups without any count as the mean of all.

    merged: the network that the groups are of. Raises ShrinkError: no group has any, as where they were folded.
    """
    total, seen = np.zeros(groups.n), np.zeros(groups.n)

    def add(ids: NDArray[np.int64] | None, scales: torch.Tensor) -> None:
        if ids is not None:
            inside = ids >= 0
            np.add.at(total, ids[inside], scales.detach().abs().cpu().double().numpy()[inside])
            np.add.at(seen, ids[inside], 1)

    for name, module in model.named_modules():
        if isinstance(module, Branches):
            add(groups.ties.get((f"{name}.weight" if name else "weight", 0)), module.scales)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.affine:
            add(groups.ties.get((f"{name}.weight" if name else "weight", 0)), module.weight)
    if not seen.any():
        raise ShrinkError("bn-gamma: no BatchNorm with scales, expected method pas, uniform or magnitude")
    scores = total / np.maximum(seen, 1)
    scores[seen == 0] = scores[seen > 0].mean()
    return scores
