"""High frequencies of a batch, by the orthonormal DCT-II: over both axes of images, over time of sequences."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@cache
def _basis(n: int) -> Tensor:
    """float32[n, n]: rows are cosines, lowest first."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    matrix[0] /= np.sqrt(2)
    return torch.from_numpy(matrix.astype(np.float32))


def kept(shape: tuple[int, ...], cutoff: float) -> NDArray[np.bool_]:
    """Which frequencies of a sample stay: [h, w] of images, [t, 1] of sequences."""
    if len(shape) == 3:
        h, w = shape[1:]
        return np.add.outer(np.arange(h), np.arange(w)) >= cutoff * max(h, w)
    return (np.arange(shape[0]) >= cutoff * shape[0])[:, None]


def high_pass(x: Tensor, cutoff: float) -> Tensor:
    """x[n, c, h, w] or x[n, t, f] without its low frequencies.

    Source: Wang et al., "Characteristic Examples", IJCAI 2021, arXiv:2105.07078 (the filter of LTRC); the transform and
    where it cuts are our choice.
    """
    mask = torch.from_numpy(kept(tuple(x.shape[1:]), cutoff)).to(x)
    if x.ndim == 4:
        rows, columns = _basis(x.shape[2]).to(x), _basis(x.shape[3]).to(x)
        spectrum = rows @ x @ columns.T * mask
        return rows.T @ spectrum @ columns
    time = _basis(x.shape[1]).to(x)
    return time.T @ (time @ x * mask)


def high_share(x: NDArray[np.float32], cutoff: float) -> NDArray[np.float64]:
    """Of each sample, how much of its energy without its mean is in the frequencies that `high_pass` keeps."""
    tensor = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    axes = tuple(range(1, tensor.ndim))
    centred = tensor - tensor.mean(axes[-2:] if x.ndim == 4 else (1,), keepdim=True)
    energy = centred.square().sum(axes).clamp(min=1e-12)
    share: NDArray[np.float64] = (high_pass(centred, cutoff).square().sum(axes) / energy).double().numpy()
    return share
