"""How good a set of examples is, over a family of models: the paper's scores, and what matters in court."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from prunus.fingerprint.statistics import area


@final
@dataclass(frozen=True)
class Scores:
    """robustness, transferability: mean match rates of related and of unrelated models; uniqueness: their difference.
    least, most: the worst match rates of either. false_alarms: the share of pairs of an unrelated and a related model
    where the unrelated one matches as often or more. area: under the ROC curve.

    Source: Wang et al., IJCAI 2021, arXiv:2105.07078 (Uniqueness Score and false alarms, read from descriptions of it).
    """

    robustness: float
    transferability: float
    uniqueness: float
    least: float
    most: float
    false_alarms: float
    area: float


def scores(related: Sequence[float], unrelated: Sequence[float]) -> Scores:
    """Of match rates; there must be some of either."""
    assert related and unrelated, "scores need models of both kinds"
    a, b = np.asarray(related, np.float64), np.asarray(unrelated, np.float64)
    robustness, transferability = float(a.mean()), float(b.mean())
    return Scores(
        robustness, transferability, robustness - transferability, float(a.min()), float(b.max()),
        float((b[:, None] >= a[None]).mean()), area(related, unrelated),
    )  # fmt: skip
