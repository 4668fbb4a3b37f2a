"""Norms of groups in torch against plain loops, at ragged edges too."""

import itertools
import math

import numpy as np
import pytest
import torch

from prunus.sparsity.boxes import box_sizes, energy, reduce_boxes
from prunus.sparsity.check import fits
from prunus.sparsity.scheme import parse
from prunus.sparsity.schemes import SCHEMES
from prunus.training.groups import grids, sizes, sums

TEXTS = [
    "unstructured",
    "filter",
    "channel",
    "punched:4x2",
    "block-row:4x8",
    "block-column:3x5",
    "bcr:4x8",
    "2:4",
    "pattern:4",
]
SHAPES = [(6, 5, 3, 3), (9, 17), (1, 1), (4, 8, 3)]
CASES = [(text, shape) for text in TEXTS for shape in SHAPES if fits(shape, parse(text)) is None]


def test_every_scheme_is_tested() -> None:
    assert {parse(text).name for text in TEXTS} == set(SCHEMES)


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_sums_and_sizes(text: str, shape: tuple[int, ...]) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32))
    for grid in grids(shape, parse(text)):
        view = weight.reshape(grid.view).numpy()
        counts = [math.ceil(extent / box) for extent, box in zip(grid.view, grid.box, strict=True)]
        wanted, of = np.zeros(counts, np.float32), np.zeros(counts, np.float32)
        for place in itertools.product(*(range(n) for n in grid.view)):
            at = tuple(p // b for p, b in zip(place, grid.box, strict=True))
            wanted[at] += view[place] ** 2
            of[at] += 1
        np.testing.assert_array_equal(sums(weight.square(), grid).numpy(), wanted)
        np.testing.assert_array_equal(sizes(weight, grid).numpy(), of)
        np.testing.assert_array_equal(np.broadcast_to(box_sizes(grid), of.shape), of)
        ranked = reduce_boxes(energy(view), np.add, grid.box)  # as numpy ranks them, in another scale
        np.testing.assert_allclose(ranked * wanted.max(), wanted * ranked.max(), rtol=1e-6)
        assert float(wanted.sum()) == float(weight.square().sum()), "each weight is in one group"


def test_bcr_has_rows_and_columns_and_pattern_kernels() -> None:
    rows, columns = grids((8, 32), parse("bcr:4x8"))
    assert rows.box == (1, 8, 1) and columns.box == (4, 1, 1)
    (kernels,) = grids((6, 5, 3, 3), parse("pattern:4"))
    assert kernels.view == (6, 5, 9) and kernels.box == (1, 1, 9)


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_the_gradient_of_a_sum_is_twice_the_weight(text: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, requires_grad=True)
    for grid in grids(shape, parse(text)):
        (gradient,) = torch.autograd.grad(sums(weight.square(), grid).sum(), weight)
        torch.testing.assert_close(gradient, 2 * weight.detach())
