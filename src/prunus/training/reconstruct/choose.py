"""Which weights stay: masks of a scheme by several scores, and of them the one that reconstruction does best with.

With h = mean of x x^T: magnitude |w|; what losing w alone costs with the others fixed, |w| sqrt(h_jj), and with the
others refitted, |w| / sqrt((h^-1)_jj); and where an ADMM arrives that starts from the better one of these.
Sources: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992, and
Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, arXiv:2208.11580 (scores; here they rank the groups of
a scheme, all at once); Boza, "Fast and Effective Weight Update for Pruned Large Language Models", 2024,
arXiv:2401.02938 (ADMM on a layer; here projected on any scheme).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.sparsity.project import project
from prunus.sparsity.scheme import Scheme
from prunus.training.reconstruct.moments import Moments
from prunus.training.reconstruct.solve import solve

Bools = NDArray[np.bool_]
# Schemes whose masks obey the one of that name too. A block of bcr that gives up columns only leaves no filter without
# its inputs: where a block is as wide as the matrix, a row that goes is a filter that answers nothing.
NARROWER: Mapping[str, Callable[[Scheme], tuple[Scheme, ...]]] = {
    "bcr": lambda scheme: (Scheme("block-column", scheme.block),)
}
RHO = (0.03, 0.1, 0.3, 1.0)  # of ADMM's stages, for columns of unit mean square
UPDATES = 8  # in each


@final
@dataclass(frozen=True, eq=False)
class Solution:
    """What a layer becomes. weights: float64[o, k]. mask: bool, like the weights of the network. error: relative, of
    the outputs, on the calibration data; plain: that of the weights of largest magnitude, left as they were."""

    weights: Tensor
    mask: Bools
    error: float
    plain: float


def reconstruct_weights(
    weights: NDArray[Any],
    moments: Moments,
    scheme: Scheme,
    sparsity: float | None,
    damping: float,
    bias: Tensor | None = None,
) -> Solution:
    """The best weights under a scheme that were found. Never worse than magnitude pruning, on the calibration data.

    weights: float[o, i, ...]. damping: strength of a pull towards the given weights, relative to the mean square of a
    column; it decides what the data leave open, as where channels are dead. bias: float64[o], the given one where the
    layer has one that is free to change.
    """
    dense = torch.from_numpy(weights.reshape(len(weights), -1)).double()
    level = float(moments.h.diagonal().mean())
    pull = damping * level if level > 0 else 1.0
    h = moments.h + pull * torch.eye(len(moments.h), dtype=torch.float64)
    g = moments.g + pull * dense
    scale = h.diagonal().sqrt()
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(h))
    best = g @ inverse  # where nothing had to vanish

    def masked(score: Tensor, shape: Scheme) -> Bools:
        return project(score.reshape(weights.shape).numpy(), shape, sparsity)

    def solved(mask: Bools) -> tuple[float, Tensor, Bools]:
        answer = solve(h, g, mask.reshape(dense.shape))
        return _loss(answer, h, g), answer, mask

    magnitude = project(weights, scheme, sparsity)
    plain = torch.where(torch.from_numpy(magnitude.reshape(dense.shape)), dense, 0.0)
    found = [solved(magnitude)]
    others = NARROWER[scheme.name](scheme) if scheme.name in NARROWER else ()
    for shape in (scheme, *others):
        scores = (best * scale, best / inverse.diagonal().sqrt())
        tried = [solved(masked(score, shape)) for score in scores]
        start = min(tried, key=lambda item: item[0])[1]
        unit = _admm(h / torch.outer(scale, scale), g / scale, start * scale, weights.shape, shape, sparsity)
        found += [*tried, solved(unit)]
    found.append((0.0, plain, magnitude))  # may win by the damping's pull only
    errors = [moments.error(answer) for _, answer, _ in found]

    first = int(np.argmin(errors))
    _, answer, mask = found[first]
    offset = None if bias is None else bias - moments.bias(plain)
    return Solution(answer, mask, errors[first], moments.error(plain, offset))


def _loss(weights: Tensor, h: Tensor, g: Tensor) -> float:
    return float(((weights @ h) * weights).sum() - 2 * (weights * g).sum())


def _admm(h: Tensor, g: Tensor, start: Tensor, shape: tuple[int, ...], scheme: Scheme, sparsity: float | None) -> Bools:
    """Where alternating between least squares and projection arrives; columns have unit mean square."""
    z, u = start, torch.zeros_like(start)
    mask = np.ones(shape, bool)
    for rho in RHO:
        factor = torch.linalg.cholesky(h + rho * torch.eye(len(h), dtype=torch.float64))
        for _ in range(UPDATES):
            w = torch.cholesky_solve((g + rho * (z - u)).T, factor).T
            mask = project((w + u).reshape(shape).numpy(), scheme, sparsity)
            z = torch.where(torch.from_numpy(mask.reshape(w.shape)), w + u, 0.0)
            u = u + w - z
        u = u * (rho / RHO[min(RHO.index(rho) + 1, len(RHO) - 1)])
    return mask
