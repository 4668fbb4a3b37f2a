"""From weights to masks: which weights stay under a scheme and a sparsity. Masks are True where a
weight stays.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import SchemeError
from prunus.sparsity.check import fits
from prunus.sparsity.scheme import Scheme
from prunus.sparsity.schemes import SCHEMES

Bools = NDArray[np.bool_]
TOLERANCE = 0.02  # how far a given sparsity may be from the one that a scheme fixes


def project(weights: NDArray[Any], scheme: Scheme, sparsity: float | None = None) -> Bools:
    """bool like `weights`: the weights that stay when those of least norm go.

    weights: float[o, i, ...], finite, filters first. sparsity: fraction of zeros, met as exactly as
    the scheme's groups permit; below 1 at least one group stays. n:m and pattern fix or bound it
    and accept None.

    Groups of unequal size (at ragged edges) are ranked by norm / sqrt(size); ties go to the lower
    index. Projecting the masked weights at the achieved sparsity gives the same mask. A higher
    sparsity keeps a subset, except under bcr, whose rows and columns are chosen jointly.
    Raises SchemeError: when the sparsity isn't one, or the scheme can't have it, or doesn't fit the
    shape.
    """
    density = 1 - resolve_sparsity(scheme, sparsity)
    if refusal := fits(weights.shape, scheme):
        raise SchemeError(refusal.reason)
    if weights.dtype == np.float16 or weights.dtype.kind != "f":
        weights = weights.astype(np.float32)
    if weights.size == 0:
        return np.ones(weights.shape, bool)
    return SCHEMES[scheme.name].project(weights, scheme, density)


def resolve_sparsity(scheme: Scheme, sparsity: float | None) -> float:
    """The sparsity to reach: the given one, or the one that the scheme itself says.

    Raises SchemeError: not within 0 and 1; not given and the scheme doesn't say; further than
    TOLERANCE from what n:m fixes or below what pattern permits.
    """
    family = SCHEMES[scheme.name]
    own = 1 - family.densest(scheme)
    if sparsity is None:
        if own == 0:
            raise SchemeError(f"scheme {scheme}: no sparsity given, expected one between 0 and 1")
        return own
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.number)):
        raise SchemeError(f"sparsity {sparsity!r}: expected a number between 0 and 1")
    if math.isnan(sparsity) or not 0 <= sparsity <= 1:
        hint = f", did you mean {float(sparsity) / 100:g}?" if 1 < sparsity <= 100 else ""
        raise SchemeError(f"sparsity {sparsity}: expected a fraction between 0 and 1{hint}")
    if sparsity < own - TOLERANCE or (family.fixed and sparsity > own + TOLERANCE):
        least = "exactly" if family.fixed else "at least"
        raise SchemeError(f"sparsity {sparsity:g} with {scheme}: expected {least} {own:.4g}")
    return own if family.fixed else max(float(sparsity), own)


def random_mask(shape: tuple[int, ...], scheme: Scheme, sparsity: float | None, seed: int) -> Bools:
    """bool[shape]: a mask of random weights, the same for the same seed: virtual sparsity, before
    any training.
    """
    weights = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return project(weights, scheme, sparsity)
