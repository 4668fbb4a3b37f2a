"""Layers in their network: what is fitted, what is kept. Times themselves are bench/mapping.py's."""

import numpy as np
import pytest
from onnx import numpy_helper

from prunus.mapping import in_place as module
from prunus.mapping.in_place import InPlace, dense_weights, digest_of, fit, in_place, trial_of
from prunus.mapping.network import read_network
from prunus.mapping.table import table_of
from prunus.pruning.one_shot import prune_onnx
from tests.mapping.fakes import network, sources


def test_slope_and_offset_are_found() -> None:
    alone = np.array([0.01, 0.05, 0.1, 0.2, 0.4, 1.0])
    assert fit(np.stack([alone, 1.1 * alone + 0.005], axis=1)) == pytest.approx((1.1, 0.005))
    assert fit(np.stack([alone, 1.4 * alone - 0.002], axis=1))[1] == 0.0  # no step gains by its overhead
    slope, offset = fit(np.stack([alone, 9 * alone], axis=1))  # out of bounds of sense
    assert slope == pytest.approx(module.BOUNDS[1] ** 2) and offset == 0
    strange = np.stack([alone, 1.1 * alone + 0.005], axis=1)
    strange[:2, 1] += (0.03, -0.03)  # of a chain, whose parts were told apart wrongly
    slope, offset = fit(strange)
    assert (slope * alone + offset).sum() == pytest.approx(strange[:, 1].sum())
    assert fit(np.array([[1.0, 1.2]])) == pytest.approx((1.2, 0.0))
    placed = InPlace({"a": 2.0}, 0.5, 1.1, 0.005, 1.05, {"fc": 1.5})
    assert placed.ms("a", 1.0) == pytest.approx(1.05 * 1.105) and placed.dense_ms("a") == pytest.approx(2.1)
    assert placed.ms("fc", 1.0) == pytest.approx(1.05 * 1.5)


def test_the_trial_has_different_schemes_where_they_fit() -> None:
    found = trial_of(sources().network)
    assert len({str(scheme) for scheme, _ in found.values()}) > 1
    assert not any(site.refusal for site in sources().network.sites if site.name in found)


def test_a_pruned_network_is_measured_as_if_dense() -> None:
    sparse = prune_onnx(network(), scheme="filter", sparsity=0.5)
    made = {t.name: numpy_helper.to_array(t) for t in dense_weights(sparse).graph.initializer}
    assert all(array.all() for array in made.values() if array.ndim > 1)
    assert not all(numpy_helper.to_array(t).all() for t in sparse.graph.initializer if len(t.dims) > 1)


def test_a_network_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_network(network(), threads=1)
    first = in_place(read, table_of(read))
    assert set(first.dense) == {site.name for site in read.sites} and all(ms > 0 for ms in first.dense.values())
    assert set(first.ratios) == {read.sites[-1].name} and all(ratio >= 1 for ratio in first.ratios.values())
    assert first.other_ms >= 0 and 1 <= first.pace <= module.MOST_PACE

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "_measure", refuse)
    assert in_place(read, table_of(read)) == first
    other = read_network(prune_onnx(network(), scheme="filter", sparsity=0.5), threads=1)
    assert digest_of(other) == digest_of(read)  # weights don't count
