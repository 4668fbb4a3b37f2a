"""Pattern pruning with connectivity: every 3x3 kernel keeps one of few patterns, or nothing.

Source: Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based
Weight Pruning", ASPLOS 2020, arXiv:2001.00138, section 4. Patterns keep the centre; the library has
those that are the natural pattern of most kernels. We rank kernels for connectivity over the layer,
by the energy that they keep.
"""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxes import energy
from prunus.sparsity.rank import top, top_rows
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]
LIBRARY = 8  # patterns that a layer uses
CENTRE = 4


def refuse_pattern(shape: tuple[int, ...], scheme: Scheme) -> Refusal | None:
    """None when the kernels are 3x3."""
    if tuple(shape[2:]) == (3, 3):
        return None
    kernel = "x".join(map(str, shape[2:])) if len(shape) > 2 else "no"
    return Refusal(f"{scheme} is for 3x3 kernels, found {kernel} kernel in shape {list(shape)}")


def project_pattern(weights: NDArray[Any], scheme: Scheme, density: float) -> Bools:
    """bool like `weights` [o, i, 3, 3]: patterns of the kernels that stay; these are nested in
    density.
    """
    (kept,) = scheme.block
    kernels = energy(weights).reshape(-1, 9)
    library = _library(kernels, kept)
    scores = kernels @ library.T.astype(kernels.dtype)
    best = scores.argmax(1)
    n_kernels = int(np.floor(density * weights.size / kept + 0.5))
    if density > 0:
        n_kernels = max(n_kernels, 1)
    connected = top(scores[np.arange(len(best)), best], n_kernels)
    mask: Bools = library[best] & connected[:, None]
    return mask.reshape(weights.shape)


def _library(kernels: NDArray[Any], kept: int) -> Bools:
    """bool[LIBRARY or fewer, 9]: the most frequent natural patterns of non-zero kernels; of equals,
    the earlier.
    """
    all_patterns = [
        [position in (CENTRE, *others) for position in range(9)]
        for others in combinations([p for p in range(9) if p != CENTRE], kept - 1)
    ]
    patterns = np.array(all_patterns, bool)
    alive = kernels[kernels.any(1)].copy()
    alive[:, CENTRE] = np.inf
    natural = top_rows(alive, kept)
    bits = 1 << np.arange(9)
    frequency = np.bincount(natural @ bits, minlength=512)[patterns @ bits]
    return patterns[np.argsort(-frequency, kind="stable")[:LIBRARY]]


def check_pattern(mask: Bools, scheme: Scheme) -> Refusal | None:
    """None when each kernel keeps as many as the scheme says, or none; whichever patterns these
    are.
    """
    if refusal := refuse_pattern(mask.shape, scheme):
        return refusal
    counts = mask.reshape(-1, 9).sum(1)
    bad = (counts != 0) & (counts != scheme.block[0])
    if not bad.any():
        return None
    kernel = int(bad.argmax())
    filter_, channel = divmod(kernel, mask.shape[1])
    return Refusal(f"not {scheme}: filter {filter_}, channel {channel}: {counts[kernel]} kept")
