"""`detect` recovers the scheme that made the zeros."""

import numpy as np
import pytest

from prunus.sparsity.detect import detect
from prunus.sparsity.project import project
from prunus.sparsity.scheme import FORMS, parse

TEXTS = [
    *FORMS.values(), "1:4", "4:8", "punched:4x2", "punched:16x8", "bcr:4x16", "bcr:16x32",
    "block-column:4x64", "block-column:16x32", "block-row:4x16",
]  # fmt: skip
FIXED = {"2:4": 0.5, "1:4": 0.75, "4:8": 0.5}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shape", [(128, 64, 3, 3), (96, 128, 3, 3)])
@pytest.mark.parametrize("sparsity", [0.7, 0.9])
def test_recovers(text: str, shape: tuple[int, ...], sparsity: float) -> None:
    weights = np.random.default_rng(0).standard_normal(shape)
    mask = project(weights, parse(text), FIXED.get(text, sparsity))
    found, zeros = detect(weights * mask)
    assert str(found) == text
    assert zeros == pytest.approx(1 - mask.mean())


def test_a_chance_zero_does_not_hide_the_scheme() -> None:
    weights = np.random.default_rng(0).standard_normal((1024, 1024))
    weights *= project(weights, parse("bcr:8x64"), 0.5)
    row, col = np.argwhere(weights)[99]
    weights[row, col] = 0
    assert detect(weights)[0] == parse("bcr:8x64")


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_dense_and_all_zero(value: float) -> None:
    scheme, sparsity = detect(np.full((16, 32), value))
    assert (str(scheme), sparsity) == (("unstructured", 0.0) if value else ("filter", 1.0))


def test_empty_and_vectors_are_unstructured() -> None:
    assert detect(np.zeros((0, 4))) == (parse("unstructured"), 0.0)
    assert detect(np.array([0.0, 1.0])) == (parse("unstructured"), 0.5)
