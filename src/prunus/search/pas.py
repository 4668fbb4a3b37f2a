"""Pruning-as-Search: widths and weights are trained together, under one budget.

Source: Li et al., "Pruning-as-Search", IJCAI 2022, arXiv:2206.01198, and the authors' code. Ours: nothing is set by
hand for a network. The code's strength of the penalty (5 for one network, 0.1 for another) and its rate of 0.02 with
momentum become numbers without a unit, in proportion to the gradients that b gets from the task in the first steps; b
neither decays nor has momentum, and stays within 0 and 2. The budget comes down step by step; b sets out from what the
task's gradients were, so that first goes what matters least; layers are pressed alike though their channels cost
differently, less where they matter for what they cost, and less the narrower they are; b comes to rest at the end; and
what lives then is trimmed to the budget, for the search hovers around it. See docs/adr/0019.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import ShrinkError
from prunus.search.branches import branched, merge
from prunus.search.choose import by_scores, cost, rounded
from prunus.search.costs import Cost
from prunus.search.gates import ALIVE, Gated, insert_gates
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.remove import shrink
from prunus.training.shrink.trace import Inputs

WARM = 0.05  # of the steps: b stands, and the task's gradients are measured
DESCENT = 0.4  # of the steps: by then the budget, which falls from the whole cost on, is what was asked for
CALM = 0.6  # of the steps: from then on b moves less and less
PRESSURE = 20.0  # the penalty's gradient over the task's, as root mean squares, were the cost the whole one at the end
LAG = 0.1  # of the steps: after so many, a cost that stays above the budget is pressed twice as hard
FALL = 0.3  # of the steps: how long b would take from 1 to 0.5 under gradients as large as the task's
BALANCE = 2  # the penalty's gradient goes with this power of the share of its layer's channels that live
MATTERS = 0.3  # layers are pressed by this power of their gradients' mean square per cost less
FAR = 1e3  # that, at most, from layer to layer; up and down
MOST = 2.0  # of b
NOTES = 1000  # of widths over a search, about


@final
@dataclass(frozen=True)
class Found:
    """What a search left. keep: bool[groups.n]. cost, budget: as shares. widths: of each layer by its weight's name,
    before and after."""

    keep: NDArray[np.bool_]
    cost: float
    budget: float
    widths: dict[str, tuple[int, int]]


@final
class WidthSearch:
    """A search, as three calls in a loop of one's own:

        search = WidthSearch(model, x, macs, budget=0.5, n_steps=n)           # model: trained
        optimizer = torch.optim.SGD(search.network.weights(), rate, momentum=0.9)
        for x, y in loader:
            loss = criterion(search.network(x), y) + search.penalty()
            optimizer.zero_grad(); loss.backward(); optimizer.step(); search.step()
        search.finish()
        ...                                                        # fine-tune search.network, the masks stand
        smaller = search.shrink()

    cost_of: from Groups to what is to be limited. budget: the share of it that stays. n_steps: of the search.
    history: how many groups of each bundle live, after every `every` steps.
    Raises UnsupportedError, ShrinkError: as `insert_gates`; and where one channel per layer costs more than the budget.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Inputs, cost_of: Callable[[Groups], Cost], budget: float, n_steps: int
    ) -> None:
        if not 0 < budget <= 1:
            raise ShrinkError(f"budget {budget:g}: expected a share above 0 and up to 1")
        self.network: Gated = insert_gates(model, example_inputs)
        self.groups, self._inputs, self.budget = self.network.groups, example_inputs, budget
        self.cost: Cost = cost_of(self.groups)
        self.every = max(1, n_steps // NOTES)
        self._excess, self._owed = 0.0, 0.0  # of the cost over what is due: now, and summed up since the budget is
        self._squares = torch.zeros(self.groups.n, dtype=torch.float64)
        self._press = torch.ones(self.groups.n, dtype=torch.float64)
        self._alive = torch.zeros(self.groups.n, dtype=torch.float64)  # at how many steps, since the budget is due
        self.history: list[list[int]] = []
        self.n_steps, self.done, self._strength, self._rate = n_steps, 0, 0.0, 0.0
        by_scores(self.groups, np.zeros(self.groups.n), self.cost, budget)  # says so now if it can't be met

    def penalty(self) -> Tensor:
        """The square of the cost's excess over this step's budget, times a strength; 0 at first, and once the widths
        stand."""
        gates = self.network.gates
        if gates.frozen or not self._strength:
            return torch.zeros((), device=gates.b.device)
        mask, alive = gates(), gates.alive()
        pull = self._pull(alive)
        excess = self.cost(alive + (mask - alive) * pull) - self.due
        self._excess = float(excess.detach())
        return (self._strength * excess * (excess + 2 * self._owed)).float()

    @torch.no_grad()
    def _pull(self, alive: Tensor) -> Tensor:
        """float[groups.n]: how hard each is pressed. A cost that is a product favours layers wide and narrow in turns,
        which the task's gradients at one point don't tell against."""
        bundle = cast(Tensor, self.network.gates.bundle)
        none = torch.zeros(len(self.groups.bundles), device=alive.device)
        shares = none.index_add(0, bundle, alive) / none.index_add(0, bundle, torch.ones_like(alive))
        pull = (shares**BALANCE)[bundle]
        return pull / pull.mean() * self._press.to(pull)

    @property
    def due(self) -> float:
        """The share that may be spent at this step."""
        descent = (self.done / self.n_steps - WARM) / (DESCENT - WARM)
        return 1 - (1 - self.budget) * min(max(descent, 0.0), 1.0)

    @torch.no_grad()
    def step(self) -> None:
        """After each step of the optimiser: moves b by its gradient, which is then cleared, and notes the widths."""
        gates = self.network.gates
        if gates.frozen:
            return
        slope = gates.b.grad
        assert slope is not None, "expected a forward and a backward pass through `network` before each step"
        if not self._rate:
            self._squares += slope.square().cpu().double()
            if self.done + 1 >= WARM * self.n_steps:
                self._set_out(self._squares / (self.done + 1))
        else:
            if self.done > DESCENT * self.n_steps:  # before, the cost is behind what is due anyway
                self._owed += self._excess / (LAG * self.n_steps)
            left = min(1.0, max(0.0, (1 - self.done / self.n_steps) / (1 - CALM)))
            gates.b.sub_(left * self._rate * slope).clamp_(0, MOST)
        gates.b.grad = None
        self.done += 1
        keep = self.network.keep()
        if self.done > DESCENT * self.n_steps:
            self._alive += torch.from_numpy(keep)
        if (self.done - 1) % self.every == 0:
            self.history.append([int(keep[members].sum()) for members in self.groups.bundles])

    def _set_out(self, squares: Tensor) -> None:
        """The warm steps are over: b, the strength of the penalty and the rate of b. squares: of the task's gradients,
        by group."""
        task = max(float(squares.mean().sqrt()), 1e-12)
        mask = torch.ones(self.groups.n, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (share,) = torch.autograd.grad(self.cost(mask), mask)
        over = 2 * (1 - self.budget) * float(share.square().mean().sqrt())
        self._strength = PRESSURE * task / over if over > 0 else 0.0
        self._rate = (1 - ALIVE) / (FALL * self.n_steps) / task
        self._press = self._pressed(share, squares)
        for members in self.groups.bundles:  # 1 in the mean of each
            squares[members] /= max(float(squares[members].mean()), 1e-300)
        b = self.network.gates.b
        b.copy_((ALIVE + (1 - ALIVE) * squares).clamp(ALIVE + 1e-6, MOST).to(b))

    def _pressed(self, share: Tensor, squares: Tensor) -> Tensor:
        """float64[groups.n], alike in a bundle: one over what a channel costs, and less where it matters. share: the
        cost's gradient. A bundle's channels cost what half of them save: measured times say little at one point."""
        bundles, every = self.groups.bundles, np.ones(self.groups.n, bool)
        costs = np.zeros(len(bundles))
        for number, members in enumerate(bundles):
            keep, half = every.copy(), members[: max(1, len(members) // 2)]
            keep[half] = False
            costs[number] = (cost(self.cost, every) - cost(self.cost, keep)) / len(half)
        if costs.max() <= 0:
            return torch.ones(self.groups.n, dtype=torch.float64)
        costs = np.maximum(costs, costs.max() / FAR)
        worth = np.array([float(squares[members].mean()) for members in bundles]) / costs
        worth = np.clip(worth / max(float(np.median(worth)), 1e-300), 1 / FAR, FAR)
        press = torch.from_numpy(1 / (costs * worth**MATTERS))[cast(Tensor, self.network.gates.bundle).cpu()]
        return press * float(share.square().mean().sqrt()) / max(float((share * press).square().mean().sqrt()), 1e-300)

    def trimmed(self, round_to: int = 1) -> NDArray[np.bool_]:
        """bool[groups.n]: the channels that lived most of the time since the budget was due, and by b where that is
        alike, as many as the budget allows; widths as `rounded` has them."""
        scores = (self._alive / max(float(self._alive.max()), 1.0)).numpy()
        scores = scores + 1e-3 * self.network.gates.b.detach().cpu().double().numpy()
        keep = by_scores(self.groups, scores, self.cost, self.budget)
        return keep if round_to == 1 else rounded(self.groups, scores, keep, self.cost, self.budget, round_to)

    def finish(self, round_to: int = 1) -> Found:
        """What lives is `trimmed`, and stays so.

        Raises ShrinkError: no widths of multiples of `round_to` are within the budget.
        """
        return self.freeze(self.trimmed(round_to))

    def freeze(self, keep: NDArray[np.bool_]) -> Found:
        """From now on these live. keep: bool[groups.n]."""
        self.network.gates.freeze(keep)
        return self.found(keep)

    def found(self, keep: NDArray[np.bool_]) -> Found:
        """What `keep` leaves."""
        return Found(keep, cost(self.cost, keep), self.budget, filters_left(self.groups, keep))

    def shrink(self, keep: NDArray[np.bool_] | None = None) -> nn.Module:
        """The network without what doesn't live, or isn't in `keep`, branches merged; checked against the masked one.

        Raises ShrinkError: as `prunus.training.shrink.remove.shrink`.
        """
        keep = self.network.keep() if keep is None else keep
        return shrink(self.merged(), self._inputs, keep, self.groups)

    def merged(self) -> nn.Module:
        """The whole network without gates, in evaluation mode where it has branches, which are merged."""
        plain = self.network.plain
        return merge(plain) if branched(plain) else plain

    def state_dict(self) -> dict[str, Tensor]:
        """All that a search needs to go on, but for the network's weights."""
        gates = self.network.gates
        return {
            "b": gates.b.detach().cpu().clone(),
            "given": cast(Tensor, gates.given).cpu().clone(),
            "alive": self._alive.clone(),
            "squares": self._squares.clone(),
            "press": self._press.clone(),
            "numbers": torch.tensor(
                [gates.frozen, self._strength, self._rate, self.budget, self.done, self._owed], dtype=torch.float64
            ),
            "history": torch.tensor(self.history, dtype=torch.int64).reshape(-1, len(self.groups.bundles)),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        gates = self.network.gates
        gates.b.copy_(state["b"])
        cast(Tensor, gates.given).copy_(state["given"])
        frozen, self._strength, self._rate, self.budget, done, self._owed = state["numbers"].tolist()
        gates.frozen, self.done = bool(frozen), int(done)
        gates.b.requires_grad_(not gates.frozen)
        self._alive.copy_(state["alive"])
        self._squares.copy_(state["squares"])
        self._press.copy_(state["press"])
        self.history = state["history"].tolist()


def filters_left(groups: Groups, keep: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Filters of each layer, before and after, by its weight's name."""
    found = {}
    for name, dim in groups.filters:
        n = groups.shapes[name][dim]
        ids = groups.ties.get((name, dim))
        found[name] = n, n if ids is None else int(np.append(keep, True)[ids].sum())
    return found
