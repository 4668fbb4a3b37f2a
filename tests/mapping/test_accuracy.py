"""The error of interpolated times: none where times are linear in density, seen where they aren't."""

import pytest

from prunus.mapping.accuracy import check_table
from prunus.mapping.network import Site
from prunus.sparsity.scheme import Scheme
from tests.mapping.fakes import formula, sources


def bent(site: Site, scheme: Scheme | None, sparsity: float) -> float:
    """10 % more than the formula off the grid."""
    return formula(site, scheme, sparsity) * (1.1 if sparsity in (0.6, 0.75, 0.85, 0.925) else 1.0)


def test_errors() -> None:
    straight = sources()
    found = check_table(straight.network, straight.table, 12)
    assert found.n == 12 and found.p90 == pytest.approx(0, abs=1e-9)
    off = sources(measure=bent)
    found = check_table(off.network, off.table, 12)
    assert found.median == pytest.approx(1 - 1 / 1.1) == pytest.approx(found.p90) and found.worst
    assert check_table(off.network, off.table, 5) == check_table(off.network, off.table, 5)
    assert check_table(off.network, off.table, 0).n == 0
