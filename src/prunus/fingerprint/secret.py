"""Starts and targets as functions of a secret, so that an owner has no choice among examples once it is committed to.

SHAKE-256 and SHA-256 only: the same on every machine and for every version of anything.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunus.fingerprint.domain import Levels

N_BYTES = 32


def starts_of(secret: bytes, n: int, shape: tuple[int, ...]) -> Levels:
    """uint8[n, ...], uniform noise."""
    size = int(np.prod(shape))
    made = [hashlib.shake_256(secret + b"x" + _number(i)).digest(size) for i in range(n)]
    return np.frombuffer(b"".join(made), np.uint8).reshape(n, *shape)


def targets_of(secret: bytes, first: Sequence[int] | NDArray[np.int64], classes: int) -> list[int]:
    """A class for each example, uniform among those that aren't what the owner's network says of its start, `first`."""
    return [_target(secret, i, int(label), classes) for i, label in enumerate(first)]


def order_of(secret: bytes, n: int, among: int) -> list[int]:
    """Which of `among` pictures examples start from, each once."""
    keys = [hashlib.sha256(secret + b"o" + _number(i)).digest() for i in range(among)]
    return sorted(range(among), key=keys.__getitem__)[:n]


def noise_seed(secret: bytes) -> int:
    """What the noise on weights is drawn from."""
    return int.from_bytes(hashlib.sha256(secret + b"w").digest()[:7], "big")


def _target(secret: bytes, i: int, first: int, classes: int) -> int:
    counter = 0
    while True:
        digest = hashlib.sha256(secret + b"t" + _number(i) + _number(counter)).digest()
        target = int.from_bytes(digest, "big") % classes
        if target != first:
            return target
        counter += 1


def _number(i: int) -> bytes:
    return i.to_bytes(8, "big")
