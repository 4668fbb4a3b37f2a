"""Stacks of matrices: blocks that fit are those of the whole stack, others those of each matrix."""

import numpy as np
import pytest

from prunus.sparsity.check import check
from prunus.sparsity.project import project
from prunus.sparsity.scheme import FORMS, parse
from prunus.sparsity.schemes import SCHEMES
from prunus.sparsity.stacked import check_stacked, n_matrices, project_stacked

SMALL = {"block-row": "block-row:4x8", "block-column": "block-column:4x8", "bcr": "bcr:4x8", "punched": "punched:4x2"}
SCHEMES_OF_MATRICES = [SMALL.get(name, text) for name, text in FORMS.items() if name != "pattern"]


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("text", SCHEMES_OF_MATRICES)
@pytest.mark.parametrize(("height", "n"), [(8, 3), (10, 3), (3, 4), (4, 1), (10, 1)])
def test_blocks_never_straddle(text: str, height: int, n: int) -> None:
    scheme, weights = parse(text), draw(height * n, 32)
    sparsity = 0.5
    mask = project_stacked(weights, scheme, sparsity, n)
    assert mask.shape == weights.shape
    assert check_stacked(mask, scheme, n) is None
    if text in SMALL.values() and height % 4:
        for part, own in zip(np.split(mask, n), np.split(weights, n), strict=True):
            np.testing.assert_array_equal(part, project(own, scheme, sparsity))
        assert n_matrices(height * n, n, scheme) == n
    else:
        np.testing.assert_array_equal(mask, project(weights, scheme, sparsity))
        assert n_matrices(height * n, n, scheme) == 1
    if SCHEMES[scheme.name].fixed or scheme.name == "unstructured":
        assert mask.mean() == 0.5


def test_zeros_across_gates_are_seen() -> None:
    """Blocks of the whole stack straddle matrices of 10 rows: what obeys them doesn't obey those of each."""
    scheme, weights = parse("block-column:4x8"), draw(30, 32)
    whole, apart = project(weights, scheme, 0.5), project_stacked(weights, scheme, 0.5, 3)
    assert check(whole, scheme) is None and check_stacked(whole, scheme, 3) is not None
    assert check(apart, scheme) is not None and check_stacked(apart, scheme, 3) is None
