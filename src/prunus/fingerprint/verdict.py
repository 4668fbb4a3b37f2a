"""Whether a suspect's matches show that it comes from the owner's network, and how much they show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from prunus.errors import FingerprintError
from prunus.fingerprint.answers import Answers
from prunus.fingerprint.file import Fingerprint, NullModel
from prunus.fingerprint.statistics import (
    fewest,
    lower_rate,
    null_rate,
    p_beta_binomial,
    p_binomial,
    p_rank,
    threshold,
    upper_rate,
)
from prunus.fingerprint.suspects import match_count

STRONG = 0.01  # of p_rank
Verdict = Literal["not shown", "shown", "strongly shown"]


@final
@dataclass(frozen=True)
class Evidence:
    """What a claim rests on. rate: of matches granted to independent models; measured: from null models, or assumed.
    needed: the fewest matches at alpha. low, high: 95 % bounds on the suspect's rate, one-sided each. p: exact binomial
    against `rate`; p_rank, p_spread (None of fewer than three null models): see `statistics`. suspects: how many were
    looked at; p is multiplied by it.
    """

    suspect: str
    n: int
    matches: int
    low: float
    high: float
    rate: float
    measured: bool
    null: tuple[NullModel, ...]
    alpha: float
    needed: int
    p: float
    p_rank: float
    p_spread: float | None
    suspects: int
    failures: int
    verdict: Verdict

    @property
    def shown(self) -> bool:
        """Is ownership shown?"""
        return self.verdict != "not shown"


def judge(
    fingerprint: Fingerprint,
    suspect: str,
    answers: Answers,
    more_null: Sequence[NullModel] = (),
    alpha: float | None = None,
    suspects: int = 1,
) -> Evidence:
    """The evidence of a suspect's answers. more_null: models that the verifier asked. Of several suspects each is
    tested at alpha / suspects.

    "shown": p is alpha at most and no null model matches as often. "strongly shown": besides, p_rank is STRONG at most.
    Raises FingerprintError: fewer examples than any verdict at alpha needs.
    """
    null, n = _distinct((*fingerprint.null, *more_null)), len(fingerprint.targets)
    alpha = fingerprint.alpha if alpha is None else alpha
    counts = [model.matches for model in null]
    rate, needed = check_size(fingerprint, null, alpha, suspects)
    matches = match_count(answers.labels, fingerprint.targets)
    p = min(1.0, p_binomial(matches, n, rate) * suspects)
    rank = p_rank(matches, counts)
    shown = p <= alpha and all(matches > count for count in counts)
    verdict: Verdict = ("strongly shown" if rank <= STRONG else "shown") if shown else "not shown"
    return Evidence(
        suspect, n, matches, lower_rate(matches, n), upper_rate(matches, n), rate, bool(null), null, alpha, needed, p,
        rank, p_beta_binomial(matches, n, counts), suspects, answers.failures, verdict,
    )  # fmt: skip


def _distinct(null: Sequence[NullModel]) -> tuple[NullModel, ...]:
    """Each model once, by its file, or by its name where that isn't known, with the most matches that were found:
    a rank among copies of one model would say too much."""
    found: dict[str, NullModel] = {}
    for model in null:
        key = model.digest or model.name
        if key not in found or model.matches > found[key].matches:
            found[key] = model
    return tuple(found.values())


def check_size(
    fingerprint: Fingerprint, null: Sequence[NullModel], alpha: float | None = None, suspects: int = 1
) -> tuple[float, int]:
    """The rate that independent models are granted, and the fewest matches that show something.

    Raises FingerprintError: not even all examples would.
    """
    n, alpha = len(fingerprint.targets), fingerprint.alpha if alpha is None else alpha
    if not 0 < alpha < 1 or suspects < 1:
        raise FingerprintError(
            f"alpha {alpha:g}, {suspects} suspects: expected alpha above 0 and below 1, and 1 or more"
        )
    rate = null_rate([model.matches for model in null], n, fingerprint.classes)
    needed = threshold(n, rate, alpha / suspects)
    if needed is None:
        least = fewest(rate, alpha / suspects)
        wanted = f"{least} at least" if least else "null models that match less"
        raise FingerprintError(
            f"examples: found {n}, expected {wanted}: at a null rate of {rate:.3f} no number of matches shows anything "
            f"at alpha {alpha:g}"
        )
    return rate, needed
