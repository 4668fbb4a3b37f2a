"""DeepJudge's two black-box measures: how alike two networks are on adversarial inputs and on sure ones.

Both are distances, small for related models; they need scores of a suspect, or labels for the first, and real data.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from prunus.fingerprint.owner import Owner
from prunus.fingerprint.suspects import Suspect

EPS, STEPS = 0.03, 10  # of the range of values
_Scores = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Tests:
    """adversarial: inputs float32[n, ...] that the owner's network mostly gets wrong; labels: the right answers; sure:
    inputs of which the owner's network is surest, with its probabilities."""

    adversarial: NDArray[np.float32]
    labels: NDArray[np.int64]
    right: float
    sure: NDArray[np.float32]
    probabilities: _Scores


def tests_of(
    owner: Owner, x: NDArray[np.float32], y: NDArray[np.int64], low: float, high: float, n: int = 100
) -> Tests:
    """From labelled data, of which the surest `n` are taken for either measure.

    Source: Chen et al., "Copy, Right? A Testing Framework for Copyright Protection of Deep Learning Models", IEEE S&P
    2022, arXiv:2112.05588 (RobD and JSD); seeds by the largest sum of squared probabilities.
    """
    with torch.no_grad():
        p = torch.cat([functional.softmax(owner.scores(part), 1) for part in torch.split(torch.from_numpy(x), 64)])
    chosen = p.square().sum(1).topk(min(n, len(x))).indices
    sure, right = torch.from_numpy(x)[chosen], torch.from_numpy(y)[chosen]
    eps, start = EPS * (high - low), sure.clone()
    step, moved = 2.5 * eps / STEPS, start.clone()
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_(True)
        loss = functional.cross_entropy(owner.scores(moved), right, reduction="sum")
        gradient = torch.autograd.grad(loss, moved)[0]
        moved = (start + (moved.detach() + step * gradient.sign() - start).clamp(-eps, eps)).clamp(low, high)
    adversarial, labels = moved.detach().numpy(), right.numpy()
    own = float((owner.labels(adversarial) == labels).mean())
    return Tests(adversarial, labels, own, sure.numpy(), p[chosen].double().numpy())


def robustness_distance(tests: Tests, suspect: Suspect, classes: int) -> float:
    """Difference of the shares of adversarial inputs that suspect and owner get right."""
    return abs(float((suspect.labels(tests.adversarial, classes) == tests.labels).mean()) - tests.right)


def divergence(tests: Tests, suspect: Suspect) -> float:
    """Mean Jensen-Shannon divergence of probabilities on the sure inputs, in nats."""
    q = as_probabilities(suspect.scores(tests.sure))
    p, middle = tests.probabilities, (tests.probabilities + q) / 2
    return float(0.5 * (_kl(p, middle) + _kl(q, middle)).mean())


def as_probabilities(scores: _Scores) -> _Scores:
    """Scores as they are where they are probabilities, else their softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    e = np.exp(scores - scores.max(1, keepdims=True))
    made: _Scores = e / e.sum(1, keepdims=True)
    return made


def _kl(p: _Scores, q: _Scores) -> _Scores:
    found: _Scores = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), 0).sum(1)
    return found
