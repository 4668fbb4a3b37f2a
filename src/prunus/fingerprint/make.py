"""A fingerprint from an owner's network: secret, starts, targets, examples, and what independent models answer."""

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FingerprintError
from prunus.fingerprint.domain import Domain, Levels
from prunus.fingerprint.file import Fingerprint, NullModel
from prunus.fingerprint.generate import generate
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import Owner
from prunus.fingerprint.secret import N_BYTES, noise_seed, order_of, starts_of, targets_of
from prunus.fingerprint.statistics import fewest_at_best, null_rate
from prunus.fingerprint.suspects import Suspect, check_null, match_count

N_EXAMPLES = 100
ALPHA = 1e-3
VALUES = 1_500_000  # of inputs at a time, whose gradients need some hundred times as much memory
MOST_VALUES = 2**30  # of all examples: they are held in memory
MOST_OUTSIDE = 0.05  # of the values of images: what is cut at the bounds
AT_ONCE = 20  # examples that null models are asked


@final
@dataclass(frozen=True, eq=False)
class Begun:
    """A secret and the examples made with it so far."""

    secret: bytes
    examples: Levels


def make(
    owner: Owner,
    domain: Domain,
    method: Method | None = None,
    n: int = N_EXAMPLES,
    null: Sequence[Suspect] = (),
    *,
    images: NDArray[np.float32] | None = None,
    secret: bytes | None = None,
    alpha: float = ALPHA,
    begun: Begun | None = None,
    part: int | None = None,
    keep: Callable[[Begun], None] = lambda begun: None,
    report: Callable[[object], None] = lambda step: None,
) -> Fingerprint:
    """`n` examples, from noise or from `images` (as the network takes them), none left out. null: independent models,
    asked now. begun: to go on with; `keep` is called after each `part` examples,
    which are made at a time; None: as many as fit into memory.

    Raises FingerprintError: fewer examples or images than needed, a domain of another shape. SuspectError: as
    `Suspect.check`, of a null model.
    """
    method = method or Method()
    if domain.shape != owner.shape:
        raise FingerprintError(f"{owner.name}: takes {list(owner.shape)}, found bounds for {list(domain.shape)}")
    if not 0 < alpha < 1:
        raise FingerprintError(f"alpha: found {alpha:g}, expected above 0 and below 1")
    least = fewest_at_best(owner.classes, alpha)
    if n < least:
        raise FingerprintError(f"examples: found {n}, expected {least} at least to show anything at alpha {alpha:g}")
    if n * math.prod(owner.shape) > MOST_VALUES:
        raise FingerprintError(f"examples: found {n}, expected {MOST_VALUES // math.prod(owner.shape)} at most")
    for model in null:
        check_null(model, owner.digest)
        model.check(owner.shape, owner.classes)
    secret = begun.secret if begun else secret or secrets.token_bytes(N_BYTES)
    starts = starts_of(secret, n, owner.shape) if images is None else _chosen(secret, n, domain, images)
    first = owner.labels(domain.values(starts))
    targets = np.array(targets_of(secret, first, owner.classes), np.int64)
    done = [] if begun is None else [begun.examples]
    part = part or min(max(VALUES // int(np.prod(owner.shape)), 1), n)
    for at in range(sum(map(len, done)), n, part):
        now, seed = slice(at, min(at + part, n)), noise_seed(secret) + at
        report(f"examples {now.start + 1} to {now.stop} of {n}")
        done.append(generate(owner, domain, method, starts[now], targets[now], seed, report))
        keep(Begun(secret, np.concatenate(done)))
    examples = np.concatenate(done)
    x = domain.values(examples)
    matches = []
    for model in null:
        report(f"asking {model.name}")
        labels = [model.labels(x[i : i + AT_ONCE], owner.classes) for i in range(0, n, AT_ONCE)]
        matches.append(NullModel(model.name, model.digest, match_count(np.concatenate(labels), targets)))
    return Fingerprint(
        owner.name, owner.digest, domain, owner.classes, method, secret, secrets.token_bytes(N_BYTES),
        datetime.now(UTC).isoformat(timespec="seconds"), alpha, tuple(int(label) for label in first), targets, examples,
        match_count(owner.labels(x), targets), tuple(matches), "noise" if images is None else "images",
        None if images is None else starts,
    )  # fmt: skip


def granted(fingerprint: Fingerprint) -> float:
    """The rate of matches that independent models are granted."""
    return null_rate([model.matches for model in fingerprint.null], len(fingerprint.targets), fingerprint.classes)


def _chosen(secret: bytes, n: int, domain: Domain, images: NDArray[np.float32]) -> Levels:
    if images.shape[1:] != domain.shape:
        raise FingerprintError(f"images: found {list(images.shape[1:])}, expected {list(domain.shape)}")
    if not np.isfinite(images).all():
        raise FingerprintError("images: found values that aren't finite")
    low, width = domain.bounds()
    outside = float(((images < low - 0.01 * width) | (images > low + 1.01 * width)).mean())
    if outside > MOST_OUTSIDE:
        raise FingerprintError(
            f"images: found values from {images.min():g} to {images.max():g}, {outside:.0%} of them outside of "
            f"{min(domain.low):g} to {max(domain.high):g}: say their bounds (--mean and --std, or --range)"
        )
    if len(images) < n:
        raise FingerprintError(f"images: found {len(images)}, expected {n} at least")
    return domain.levels(images[order_of(secret, n, len(images))])
