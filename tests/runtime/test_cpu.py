"""CPUs in an order in which as many neighbours as there are cores share none."""

import os

import pytest

from prunus.runtime import cpu


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ({"0": [0], "1": [1]}, [0, 1]),
        ({"0,4": [0, 4], "1,5": [1, 5]}, [0, 1, 4, 5]),
        ({"0-1": [0, 1], "2-3": [2, 3]}, [0, 2, 1, 3]),
        ({"0-1": [1], "2-3": [2, 3]}, [1, 2, 3]),
        ({}, []),
    ],
)
def test_cores_come_in_turn(cores: dict[str, list[int]], expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """However the system numbers their second threads, and with some CPUs forbidden."""
    monkeypatch.setattr(cpu, "_cores", lambda: cores)
    assert cpu.spread_cpus() == expected
    assert cpu.physical_cores() == max(len(cores), 1)


def test_only_cpus_that_are_allowed() -> None:
    """All of them, each once."""
    assert sorted(cpu.spread_cpus()) == sorted(os.sched_getaffinity(0))
