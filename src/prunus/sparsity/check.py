"""Do these zeros obey this scheme? Answers are None or a Refusal that names the first place where
they don't.
"""

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme
from prunus.sparsity.schemes import SCHEMES

Bools = NDArray[np.bool_]


def fits(shape: tuple[int, ...], scheme: Scheme) -> Refusal | None:
    """Why weights of `shape` can't take `scheme`; None when they can."""
    if len(shape) < 2:
        return Refusal(f"{scheme}: shape {list(shape)}, expected filters and channels at least")
    return SCHEMES[scheme.name].refuse(tuple(shape), scheme)


def check(mask: Bools, scheme: Scheme) -> Refusal | None:
    """None when `mask` (bool[o, i, ...], True = kept) obeys the scheme, else the first place where
    it doesn't.

    Only the structure is judged, not how many stay.
    """
    if refusal := fits(mask.shape, scheme):
        return refusal
    if mask.size == 0:
        return None
    return SCHEMES[scheme.name].check(np.ascontiguousarray(mask, bool), scheme)
