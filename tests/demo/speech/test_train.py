"""The listener's training."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='pip install "prunus[prune]"')

from prunus.demo.speech.train import (  # noqa: E402
    Listener,
    Schedule,
    accuracy,
    batches,
    heard,
    padded,
    silence,
    steps_per_epoch,
    train,
)
from prunus.training.pruner import Pruner  # noqa: E402
from tests.demo.speech.spoken import spoken  # noqa: E402


def test_padding_changes_no_answer() -> None:
    network, recordings = Listener().eval(), list(spoken().test.frames[:5])
    x, valid = padded(recordings)
    with torch.no_grad():
        together = heard(network(x, silence(5))[0], valid)
        for i, frames in enumerate(recordings):
            alone = network(torch.from_numpy(frames)[:, None], silence())[0].mean(0)
            torch.testing.assert_close(together[i], alone[0])


def test_batches_hold_each_recording_once() -> None:
    part = spoken().train
    found = batches(part, np.random.default_rng(0))
    assert len(found) == steps_per_epoch(part) == 3
    assert sorted(np.concatenate(found)) == list(range(len(part.labels)))


def test_it_learns_and_keeps_exact_zeros() -> None:
    part, network, teacher = spoken().train, Listener(), Listener(1)
    train(network, part, Schedule(4, 1e-2))
    assert accuracy(network, part) > 0.5
    rules = [{"match": "gru", "scheme": "bcr:8x16", "sparsity": 0.9}]
    recipe = {"method": "gradual", "epochs": {"sparsify": 1, "recover": 1}, "layers": rules}
    pruner = Pruner(network, recipe, steps_per_epoch=steps_per_epoch(part))
    train(network, part, Schedule(pruner.epochs, 1e-2), pruner, teacher)
    report = pruner.finalize()
    assert len(pruner.masks) == 4 and abs(report.sparsity - 0.9) < 0.01
    for name, mask in pruner.masks.items():
        assert not network.get_parameter(name).detach().numpy()[~mask].any(), name


def test_training_is_the_same_for_a_seed() -> None:
    networks = [Listener(), Listener()]
    for network in networks:
        train(network, spoken(60).train, Schedule(1, 1e-3))
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)
