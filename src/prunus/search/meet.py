"""A budget of milliseconds, met as measured: what the table of layers foresees is set right by the whole network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import ShrinkError
from prunus.search.branches import branched, merge
from prunus.search.costs import Latency
from prunus.search.pas import WidthSearch
from prunus.search.times import compiled, latency
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.trace import Inputs

CALIBRATED = (0.25, 0.5, 0.75)  # shares of a search: then, and at its end, a budget of milliseconds is set right
ROUNDS = 5
COARSE_ROUNDS = 3  # with steps that finer ones come after
CLOSE = 0.02  # of the budget: near enough
MISSED = 0.05  # of the budget: to be told

Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Round:
    """Widths and what the network took with them. keep: bool[groups.n]."""

    keep: Bools
    foreseen_ms: float
    ms: float


def latency_of(
    model: nn.Module,
    example_inputs: Inputs,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
    factor: float | None = None,
) -> Latency:
    """A cost in milliseconds for a WidthSearch over the model, right for the whole network; see `times.latency`.

    factor: of a Latency that was calibrated before, in place of measuring.
    """
    merged = merge(model) if branched(model) else model
    of = latency(merged, example_inputs, find_groups(merged, example_inputs), threads, progress)
    of.scale(of.factor * compiled(merged, example_inputs, threads).ms / of.whole if factor is None else factor)
    return of


def share_of(of: Latency, budget_ms: float) -> float:
    """The budget as a share of the whole network's time.

    Raises ShrinkError: the whole network is within it.
    """
    if budget_ms >= of.whole:
        raise ShrinkError(
            f"budget {budget_ms:g} ms: the whole network takes {of.whole:.4g} ms, expected less than that"
        )
    return budget_ms / of.whole


def calibrate(search: WidthSearch, of: Latency, budget_ms: float, keep: Bools, ms: float) -> None:
    """From now on the network that `keep` leaves is taken to need `ms`, and the search goes by that."""
    of.calibrate(as_mask(keep), ms)
    search.budget = min(budget_ms / of.whole, 1.0)


def meet(
    search: WidthSearch,
    of: Latency,
    budget_ms: float,
    measured_ms: Callable[[nn.Module], float],
    chosen: Callable[[int], Bools] | None = None,
    progress: Callable[[str], None] | None = None,
    steps: Sequence[int] = (1,),
) -> list[Round]:
    """Trim, measure, calibrate, and again, until the budget is met within CLOSE or ROUNDS are over; the best first.

    of: the search's cost. chosen: what lives under `search.budget`, in widths of multiples of so many channels;
    `search.trimmed`, if it isn't said. steps: such multiples, coarsest first; a finer one is tried where the budget
    isn't met with those before. Nothing is frozen. Raises ShrinkError: the budget can't be reached, as it seems before
    anything was measured.
    """
    chosen = chosen or search.trimmed
    rounds = list[Round]()
    for step in steps:
        for _ in range(ROUNDS if step == steps[-1] else COARSE_ROUNDS):
            try:
                keep = chosen(step)
            except ShrinkError:
                if not rounds and step == steps[-1]:
                    raise
                break  # below one step in each layer
            if any((known.keep == keep).all() for known in rounds):
                break  # widths come in steps
            foreseen = float(of(as_mask(keep))) * of.whole
            ms = measured_ms(search.shrink(keep))
            rounds.append(Round(keep, foreseen, ms))
            if progress:
                progress(f"{foreseen:.3f} ms foreseen, {ms:.3f} ms measured, {budget_ms:g} ms asked for")
            if 1 - CLOSE <= ms / budget_ms <= 1 + CLOSE:
                return _nearest(rounds, budget_ms)
            calibrate(search, of, budget_ms, keep, ms)
    return _nearest(rounds, budget_ms)


def _nearest(rounds: list[Round], budget_ms: float) -> list[Round]:
    return sorted(rounds, key=lambda one: abs(one.ms / budget_ms - 1))


def steps_down(lanes: int) -> tuple[int, ...]:
    """A vector, half of one, and so on to single channels: kernels waste what widths leave of a vector."""
    return (lanes, *steps_down(lanes // 2)) if lanes > 1 else (1,)


def as_mask(keep: Bools) -> Tensor:
    """float32 of zeros and ones."""
    return torch.from_numpy(keep.astype(np.float32))
