"""How far interpolated times are from measured ones: a table's honest error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from prunus.mapping.network import Network, Site
from prunus.mapping.options import SPARSITIES, schemes_for, sparsities_of
from prunus.mapping.table import Table
from prunus.sparsity.scheme import Scheme


@final
@dataclass(frozen=True)
class Check:
    """Of `n` interpolated entries, |predicted / measured now - 1|: median and 90th percentile; worst: which entry."""

    n: int
    median: float
    p90: float
    worst: str


def check_table(
    network: Network, table: Table, n: int, seed: int = 0, progress: Callable[[str], None] | None = None
) -> Check:
    """Measure `n` interpolated entries anew, drawn by the seed; fewer where there aren't so many."""
    entries: list[tuple[Site, Scheme, float]] = []
    seen: set[str] = set()
    for site in network.sites:
        if site.refusal or site.signature in seen:
            continue
        seen.add(site.signature)
        for scheme in schemes_for(site, network.precision):
            points = table.points(scheme)
            entries += [(site, scheme, p) for p in sparsities_of(scheme, SPARSITIES) if p not in points]
    drawn = np.random.default_rng(seed).permutation(len(entries))[:n]
    errors: dict[str, float] = {}
    for site, scheme, sparsity in (entries[i] for i in drawn):
        name = f"{site.name} {scheme} {sparsity:g}"
        if progress:
            progress(name)
        predicted = table.time(site, scheme, sparsity).ms
        errors[name] = abs(predicted / table.measure(site, scheme, sparsity) - 1)
    if not errors:
        return Check(0, 0.0, 0.0, "")
    median, p90 = np.percentile(list(errors.values()), [50, 90]).tolist()
    return Check(len(errors), median, p90, max(errors, key=errors.__getitem__))
