"""Tables of a plan: equal ones once, late ones where their address says."""

import numpy as np

from prunus.runtime.lower.context import Draft
from prunus.runtime.program import Program
from prunus.runtime.records import TABLES

NOTHING = Program("net", "x86-64-avx2", 8, False, (), (), {}, (), {})


def draft() -> Draft:
    return Draft(NOTHING, 1, {}, {}, {})


def element(where: int) -> int:
    assert where >> 40 == TABLES
    return where & ((1 << 40) - 1)


def test_equal_tables_are_kept_once() -> None:
    made = draft()
    first = made.table(np.arange(20))
    other = made.table(np.arange(21))
    again = made.table(np.arange(20, dtype=np.int32).reshape(4, 5))
    floats = made.table(np.ones(3, np.float32))
    assert first == again and len({first, other, floats}) == 3
    tables = made.write_tables()
    assert len(tables) == 32 + 32 + 16
    np.testing.assert_array_equal(tables[element(first) :][:20], np.arange(20))
    np.testing.assert_array_equal(tables[element(other) :][:21], np.arange(21))
    np.testing.assert_array_equal(tables[element(floats) :][:3].view(np.float32), 1)


def test_late_tables_are_written_in_their_place() -> None:
    made = draft()
    empty = made.late_table(0, lambda out: np.copyto(out, 7))
    late = [made.late_table(17, lambda out, n=n: np.copyto(out, n)) for n in (3, 4)]  # type: ignore[misc]
    early = made.table(np.full(5, 9))
    tables = made.write_tables()
    assert all(element(where) % 16 == 0 for where in (empty, *late, early))
    for where, size, value in ((late[0], 17, 3), (late[1], 17, 4), (early, 5, 9)):
        np.testing.assert_array_equal(tables[element(where) :][:size], value)
    assert tables.sum() == 17 * 3 + 17 * 4 + 5 * 9
    assert draft().write_tables().size == 16
