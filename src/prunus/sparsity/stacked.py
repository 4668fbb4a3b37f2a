"""Matrices stacked as rows, as the gates of a recurrent layer and its directions are: blocks never straddle them.

Where a block's rows divide those of a gate, the stack is one matrix, and blocks start at its first row. Else each gate
is a matrix of its own, whose last blocks are smaller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.check import check
from prunus.sparsity.project import project
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]
BY_ROWS = ("block-row", "block-column", "bcr", "punched")  # schemes whose blocks have several rows


def n_matrices(rows: int, n_stacked: int, scheme: Scheme) -> int:
    """In how many equal parts a stack of `rows` in all is taken: 1, or as many as there are matrices in it."""
    assert rows % n_stacked == 0, f"{rows} rows of {n_stacked} matrices"
    aligned = scheme.name not in BY_ROWS or rows // n_stacked % scheme.block[0] == 0
    return 1 if aligned else n_stacked


def project_stacked(weights: NDArray[Any], scheme: Scheme, sparsity: float | None, n_stacked: int) -> Bools:
    """As `project`, of a stack of `n_stacked` matrices of the same height; each reaches the sparsity by itself where
    the stack is taken apart."""
    parts = np.split(weights, n_matrices(len(weights), n_stacked, scheme))
    return np.concatenate([project(part, scheme, sparsity) for part in parts])


def check_stacked(mask: Bools, scheme: Scheme, n_stacked: int) -> Refusal | None:
    """As `check`, of such a stack."""
    for part in np.split(mask, n_matrices(len(mask), n_stacked, scheme)):
        if refusal := check(part, scheme):
            return refusal
    return None
