"""Masks and weights of single layers, under every scheme."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prunus.errors import CalibrationError
from prunus.sparsity.check import check
from prunus.sparsity.project import project
from prunus.sparsity.scheme import FORMS, parse
from prunus.sparsity.schemes import SCHEMES
from prunus.training.reconstruct.choose import reconstruct_weights
from prunus.training.reconstruct.moments import Moments, Sums


def draw(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def correlated(k: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    """float64[k, n]: columns that can stand in for one another."""
    mix = draw(k, k // 3, seed=seed) + 0.0
    return mix @ draw(k // 3, n, seed=seed + 1) + 0.3 * draw(k, n, seed=seed + 2) + 0.5


def moments(x: NDArray[np.float64], y: NDArray[np.float64], centred: bool = True) -> Moments:
    sums = Sums(len(y), len(x))
    for part in np.array_split(np.arange(x.shape[1]), 3):
        sums.add(torch.from_numpy(x[:, part]), torch.from_numpy(y[:, part]))
    return Moments.of(sums, "layer", centred)


def sparsity_of(name: str) -> float | None:
    return None if SCHEMES[name].fixed else max(0.6, 1 - SCHEMES[name].densest(parse(FORMS[name])))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("centred", [True, False])
def test_never_worse_than_magnitude(name: str, centred: bool) -> None:
    scheme = parse(FORMS[name])
    weights = draw(16, 8, 3, 3)
    x = correlated(72, 300)
    y = weights.reshape(16, -1) @ x + 0.2
    bias = torch.full((16,), 0.2, dtype=torch.float64) if centred else None
    if not centred:
        y = y - 0.2
    found = reconstruct_weights(weights, moments(x, y, centred), scheme, sparsity_of(name), 0.01, bias)
    mask = project(weights, scheme, sparsity_of(name))
    assert check(found.mask, scheme) is None
    assert found.mask.mean() == pytest.approx(mask.mean(), abs=0.03)
    plain = np.where(mask, weights, 0).reshape(16, -1) @ x + (0.2 if centred else 0)
    assert found.plain == pytest.approx(np.sqrt(((plain - y) ** 2).sum() / (y**2).sum()), rel=1e-9)
    answers = np.where(found.mask.reshape(16, -1), found.weights.numpy(), 0) @ x
    if centred:
        answers += (y.mean(1) - found.weights.numpy() @ x.mean(1))[:, None]
    assert found.error == pytest.approx(np.sqrt(((answers - y) ** 2).sum() / (y**2).sum()), rel=1e-6)
    # a filter that is gone is gone, and a row of a block is much of one: only its mean can be made up for
    assert found.error < (1 if name in ("filter", "block-row") else 0.8) * found.plain


@pytest.mark.parametrize("name", SCHEMES)
def test_what_is_representable_is_recovered(name: str) -> None:
    """Outputs that sparse weights on the same inputs make: those weights are found again."""
    scheme = parse(FORMS[name])
    sparse = draw(16, 8, 3, 3)
    sparse *= project(sparse, scheme, sparsity_of(name))
    x = draw(72, 300, seed=5)
    found = reconstruct_weights(sparse, moments(x, sparse.reshape(16, -1) @ x), scheme, sparsity_of(name), 1e-4)
    assert found.error < 1e-6
    np.testing.assert_allclose(found.weights.numpy(), sparse.reshape(16, -1), atol=1e-9)


def test_errors_before_are_compensated() -> None:
    """The inputs are only half of what the dense network read: twice the weights make up for it."""
    weights = draw(8, 16)
    x = draw(16, 500, seed=3)
    found = reconstruct_weights(weights, moments(x / 2, weights @ x), parse("unstructured"), 0.0, 1e-9)
    np.testing.assert_allclose(found.weights.numpy(), 2 * weights, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 5])
def test_fewer_samples_than_columns_and_dead_channels(n: int) -> None:
    weights, x = draw(8, 32), draw(32, n, seed=1)
    x[4:9] = 0
    found = reconstruct_weights(weights, moments(x, weights @ x), parse("unstructured"), 0.5, 0.01)
    assert np.isfinite(found.weights.numpy()).all()
    assert found.error <= found.plain
    assert found.mask.mean() == 0.5


def test_inputs_that_are_all_zero() -> None:
    weights, x = draw(8, 32), np.zeros((32, 10))
    found = reconstruct_weights(weights, moments(x, weights @ x), parse("bcr:4x8"), 0.5, 0.01)
    assert np.isfinite(found.weights.numpy()).all()
    assert check(found.mask, parse("bcr:4x8")) is None


def test_values_that_are_not_finite_are_refused() -> None:
    x = draw(4, 10)
    x[2, 3] = np.inf
    with pytest.raises(CalibrationError, match="layer"):
        moments(x, draw(2, 10))
