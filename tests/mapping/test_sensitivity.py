"""Losses: of weights alone, and with gains that calibration data tells."""

import numpy as np
import pytest

from prunus.errors import CalibrationError, FeedError
from prunus.mapping.sensitivity import energy_lost, fading, loss, measure_gains
from prunus.pruning.one_shot import prune_by_rules
from prunus.pruning.onnx_weights import read, weights
from prunus.sparsity.scheme import parse
from tests.mapping.fakes import network, sources

UNSTRUCTURED, PUNCHED = parse("unstructured"), parse("punched:4x4")


def test_energy_is_that_of_the_weights_that_one_shot_pruning_takes() -> None:
    about = sources()
    site = about.network.sites[3]
    lost = energy_lost(site, PUNCHED, 0.9)
    model = prune_by_rules(network(), [(site.name, (PUNCHED, 0.9))]).model
    before, after = (
        next(read(w) for w in weights(m) if w.layer == site.name).astype(np.float64) for m in (network(), model)
    )
    assert lost == pytest.approx(1 - np.square(after).sum() / np.square(before).sum())
    assert energy_lost(site, UNSTRUCTURED, 0.9) < lost  # the least weights go


def test_a_loss_grows_with_sparsity_and_gain_without_bound_at_the_end() -> None:
    site = sources().network.sites[3]
    found = [loss(site, PUNCHED, sparsity, {}) for sparsity in (0.6, 0.8, 0.9, 0.95)]
    assert found == sorted(found) and found[0] > 0
    assert loss(site, PUNCHED, 0.8, {site.name: 3.0}) == pytest.approx(3 * found[1], rel=1e-5)
    assert fading(0.0) == 0.0 and fading(0.01) == pytest.approx(0.01, rel=0.01) and fading(1.0) > 10


def test_gains_tell_layers_apart_by_the_outputs() -> None:
    model = network()
    read_ = sources(model).network
    feeds = [{"x": np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)} for seed in range(2)]
    gains = measure_gains(read_, feeds)
    assert set(gains) == {site.name for site in read_.sites if not site.refusal}
    assert all(gain > 0 for gain in gains.values()) and len(set(gains.values())) > 1
    assert gains == measure_gains(read_, feeds)
    with pytest.raises(CalibrationError, match="no batches"):
        measure_gains(read_, [])


def test_feeds_are_those_of_the_network() -> None:
    """Of a fixed batch they are cut, of another type or shape refused."""
    read_ = sources().network
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert measure_gains(read_, [{"x": x}]) == measure_gains(read_, [{"x": x[:1]}, {"x": x[1:]}])
    for other, said in ((x.astype(np.float64), "dtype float64, expected float32"), (x[..., :4], "expected .*, 8, 8")):
        with pytest.raises(FeedError, match=said):
            measure_gains(read_, [{"x": other}])
