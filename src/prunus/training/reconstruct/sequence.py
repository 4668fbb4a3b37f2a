"""Layer by layer through the network: what a layer reads is taken from the sparse network so far, what it is to answer
from the dense one, so that it makes up for what the layers before it lost.

Each layer takes a run of both networks up to it, for each batch; nothing but sums is kept.
Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv:1707.06168, section
3.2, for the dense network's outputs as the target of the sparse network's inputs; here with any scheme's zeros.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.sparsity.scheme import Scheme
from prunus.training.reconstruct.calls import Call, order, run
from prunus.training.reconstruct.choose import Solution, reconstruct_weights
from prunus.training.reconstruct.moments import Moments, Sums

Batch = tuple[Tensor, ...]
POSITIONS = 16384  # of outputs, over all batches, at least; and 4 for each column of the layer matrix


@final
@dataclass(frozen=True)
class Goal:
    """What a weight is to have; parameter: its name in the network."""

    parameter: str
    scheme: Scheme
    sparsity: float | None


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """What was done to a weight. mask: bool like it. error: of the layer's outputs on the calibration data, relative;
    magnitude: that of one-shot magnitude pruning in its place, reading the same."""

    parameter: str
    mask: NDArray[np.bool_]
    error: float
    magnitude: float


@final
@dataclass(frozen=True, eq=False)
class _Bias:
    """Where the layer's bias may be changed: to the tensor, times the sign. A running mean is taken away later."""

    tensor: Tensor
    sign: float
    given: Tensor | None  # float64[o], of the dense layer


def reconstruct_in_sequence(
    sparse: nn.Module,
    dense: nn.Module,
    goals: Sequence[Goal],
    batches: Sequence[Batch],
    *,
    damping: float,
    seed: int,
    fixed: frozenset[str] = frozenset(),
    report: Callable[[Outcome], None] | None = None,
) -> tuple[list[Outcome], dict[str, str]]:
    """Prune `sparse` in place, a copy of `dense`; both in evaluation mode. Outcomes in the order of the layers, and why
    some weights were left as they are, by name. fixed: weights whose layer keeps the bias that it has.

    Raises CalibrationError: activations that aren't finite.
    """
    calls, watch = order(sparse, batches[0], [goal.parameter for goal in goals])
    refused = {goal.parameter: why for goal in goals if (why := _refusal(calls.get(goal.parameter, [])))}
    by_name = {goal.parameter: goal for goal in goals}
    outcomes = []
    for name in calls:
        if name in refused:
            continue
        bias = None if name in fixed else _bias_of(name, calls, watch.means)
        goal, n_calls = by_name[name], len(calls[name])
        sums = _collect(sparse, dense, name, n_calls, batches, seed, bias)
        weight = sparse.get_parameter(name)
        moments = Moments.of(sums, name, bias is not None)
        given = weight.detach().double().cpu().numpy()
        solution = reconstruct_weights(
            given, moments, goal.scheme, goal.sparsity, damping, None if bias is None else bias.given
        )
        _apply(weight, solution, moments, bias)
        outcomes.append(Outcome(name, solution.mask, solution.error, solution.plain))
        if report is not None:
            report(outcomes[-1])
    return outcomes, refused


def _refusal(calls: Sequence[Call]) -> str:
    if not calls:
        return "the network doesn't call it as a convolution or linear layer"
    return "grouped convolution" if any(call.groups != 1 for call in calls) else ""


def _bias_of(name: str, calls: Mapping[str, Sequence[Call]], means: Mapping[str, Tensor]) -> _Bias | None:
    """The bias of a layer that nothing but its own calls uses; else the running mean behind it; else none."""
    mine = [call.bias for call in calls[name]]
    bias = mine[0]
    if bias is not None:
        others = [call.bias for other, made in calls.items() if other != name for call in made]
        if any(b is not bias for b in mine) or any(b is bias for b in others):
            return None
        return _Bias(bias, 1.0, bias.detach().double().cpu())
    if name in means and len(mine) == 1:
        return _Bias(means[name], -1.0, torch.zeros(len(means[name]), dtype=torch.float64))
    return None


def _collect(
    sparse: nn.Module,
    dense: nn.Module,
    name: str,
    n_calls: int,
    batches: Sequence[Batch],
    seed: int,
    bias: _Bias | None,
) -> Sums:
    """The sums of one layer over all batches; positions are drawn at random, evenly from batches."""
    weights = [{name: model.get_parameter(name)} for model in (sparse, dense)]
    o, k = len(weights[0][name]), weights[0][name][0].numel()
    sums, generator = Sums(o, k), torch.Generator().manual_seed(seed)
    n_images = sum(len(batch[0]) for batch in batches)
    for batch in batches:
        share = -(-max(POSITIONS, 4 * k) * len(batch[0]) // (n_images * n_calls))
        pairs = zip(run(sparse, batch, weights[0], n_calls), run(dense, batch, weights[1], n_calls), strict=True)
        for mine, wanted in pairs:
            chosen = torch.randperm(mine.positions(), generator=generator)[:share].to(mine.input.device)
            y = wanted.outputs(chosen)
            if bias is None and wanted.bias is not None:
                y = y - wanted.bias.detach().double()[:, None]
            sums.add(mine.columns(chosen).cpu(), y.cpu())
    return sums


@torch.no_grad()
def _apply(weight: Tensor, solution: Solution, moments: Moments, bias: _Bias | None) -> None:
    """Write the weights, zeros exact, and the bias that goes with them."""
    kept = torch.from_numpy(solution.mask)
    values = torch.where(kept, solution.weights.reshape(weight.shape), 0.0)
    weight.copy_(values)
    if bias is not None and bias.given is not None:
        change = moments.bias(values.reshape(len(weight), -1)) - bias.given
        bias.tensor.add_((bias.sign * change).to(bias.tensor))
