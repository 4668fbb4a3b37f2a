"""The list of schemes: what each does with weights. A new scheme is a row here and in FORMS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.sparsity.boxed import check_boxed, project_boxed
from prunus.sparsity.crossed import check_crossed, project_crossed
from prunus.sparsity.pattern import check_pattern, project_pattern, refuse_pattern
from prunus.sparsity.refusal import Refusal
from prunus.sparsity.scheme import Scheme

Bools = NDArray[np.bool_]


def _fits_all(shape: tuple[int, ...], scheme: Scheme) -> Refusal | None:
    return None


@final
@dataclass(frozen=True)
class Family:
    """What a scheme's name stands for.

    project(weights, scheme, density): the mask. check(mask, scheme): does it obey? refuse(shape,
    scheme): can weights of this shape take it? densest(scheme): the density of weights that it
    keeps at most. fixed: keeps exactly that. nested: a lower density keeps a subset.
    """

    project: Callable[[NDArray[Any], Scheme, float], Bools]
    check: Callable[[Bools, Scheme], Refusal | None]
    refuse: Callable[[tuple[int, ...], Scheme], Refusal | None] = _fits_all
    densest: Callable[[Scheme], float] = lambda scheme: 1.0
    fixed: bool = False
    nested: bool = True


_BOXED = Family(project_boxed, check_boxed)

SCHEMES: dict[str, Family] = {
    "filter": _BOXED,
    "channel": _BOXED,
    "block-row": _BOXED,
    "block-column": _BOXED,
    "punched": _BOXED,
    "bcr": Family(project_crossed, check_crossed, nested=False),
    "n:m": Family(
        project_boxed,
        check_boxed,
        densest=lambda scheme: scheme.block[0] / scheme.block[1],
        fixed=True,
    ),
    "pattern": Family(
        project_pattern,
        check_pattern,
        refuse=refuse_pattern,
        densest=lambda scheme: scheme.block[0] / 9,
    ),
    "unstructured": _BOXED,
}
