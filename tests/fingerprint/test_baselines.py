"""IPGuard and DeepJudge: what their numbers mean on a small network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.errors import SuspectError
from prunus.fingerprint.baselines import deepjudge
from prunus.fingerprint.baselines.ipguard import ipguard
from prunus.fingerprint.owner import owner_of_module
from prunus.fingerprint.suspects import Suspect
from tests.fingerprint.toy import DOMAIN, SHAPE, digits, trained


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(0)


def suspect(net: nn.Module) -> Suspect:
    return Suspect("s", lambda x: net(torch.from_numpy(x)).detach().numpy())


def test_ipguard_comes_near_the_boundary(net: nn.Module) -> None:
    owner, starts = owner_of_module(net, SHAPE), DOMAIN.levels(digits()[0][:30].numpy())
    first = owner.labels(DOMAIN.values(starts))
    examples, labels = ipguard(owner, DOMAIN, starts, first, 1, steps=300, k=0.5)
    np.testing.assert_array_equal(owner.labels(DOMAIN.values(examples)), labels)

    def margin(levels: np.ndarray) -> float:  # type: ignore[type-arg]
        best = owner.scores(torch.from_numpy(DOMAIN.values(levels))).topk(2).values
        return float((best[:, 0] - best[:, 1]).median())

    assert margin(examples) < 0.6 * margin(starts)
    again, _ = ipguard(owner, DOMAIN, starts, first, 1, steps=300, k=0.5)
    np.testing.assert_array_equal(examples, again)


def test_deepjudge_tells_the_owner_from_others(net: nn.Module) -> None:
    x, y = digits()
    tests = deepjudge.tests_of(owner_of_module(net, SHAPE), x.numpy(), y.numpy(), 0.0, 1.0, 60)
    assert tests.adversarial.shape == (60, *SHAPE) and np.abs(tests.adversarial - tests.sure).max() <= 0.03 + 1e-6
    own, other = suspect(net), suspect(trained(1, 12))
    assert deepjudge.robustness_distance(tests, own, 10) == 0
    assert deepjudge.divergence(tests, own) < 1e-9 < deepjudge.divergence(tests, other)
    with pytest.raises(SuspectError, match="labels only"):
        deepjudge.divergence(tests, Suspect("s", lambda x: np.zeros(len(x), int)))


def test_divergence_is_jensen_shannons(net: nn.Module) -> None:
    from scipy.spatial.distance import jensenshannon

    x, y = digits()
    tests = deepjudge.tests_of(owner_of_module(net, SHAPE), x.numpy(), y.numpy(), 0.0, 1.0, 20)
    other = trained(1, 12)
    q = functional.softmax(other(torch.from_numpy(tests.sure)), 1).detach().double().numpy()
    expected = (jensenshannon(tests.probabilities, q, axis=1) ** 2).mean()
    assert deepjudge.divergence(tests, suspect(other)) == pytest.approx(expected, abs=1e-6)
    assert deepjudge.as_probabilities(q) is q
