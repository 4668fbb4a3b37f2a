"""The family's roles, and what the table makes of rows."""

from pathlib import Path
from typing import Any

import pytest

from bench import family, fingerprint


def row(kind: str, owner: str, draw: int, uniqueness: float, **more: Any) -> dict[str, Any]:
    return {
        "key": f"fashion {owner} {kind} draw {draw}", "kind": kind, "owner": owner, "draw": draw,
        "uniqueness": uniqueness, "robustness": 0.9, "transferability": 0.9 - uniqueness, "recognised": 1.0,
        "recognised_of_all": 0.9, "counted": 8, "false_positives": [], "seconds": 5.0, "area": 0.9,
        "rates": {"independent": {f"i{k}": 0.1 for k in range(20)}, "descendant": {"d": 0.9}}, **more,
    }  # fmt: skip


def rows(its: float, **more: Any) -> list[dict[str, Any]]:
    pairs = [(owner, draw) for owner in fingerprint.OWNERS for draw in range(3)]
    return [row(kind, *pair, u, **more) for kind, u in (("ltrc", 0.8), ("ipguard", its)) for pair in pairs]


def test_roles() -> None:
    members = family.members()
    names = [member.name for member in members]
    assert len(names) == len(set(names)) and len({member.path for member in members}) == len(names)
    counts = {role: sum(member.role == role for member in members) for role in ("null", "independent")}
    assert counts["independent"] >= 20 and counts["null"] >= 8
    for owner in fingerprint.OWNERS:
        assert sum(member.of == owner for member in members) >= 10
        assert sum(member.of == owner and member.counted for member in members) >= 8
    seeds = (family.NULL_SEEDS, family.TRIAL_SEEDS, family.REPORTED_SEEDS, tuple(s for _, s in family.OWNERS.values()))
    flat = [seed for group in seeds for seed in set(group)]
    assert len(flat) == len(set(flat))
    assert all(member.of != "trial" and member.role != "trial" for member in members if member.role == "independent")


def test_ratio_is_claimed_by_its_lower_bound_only() -> None:
    lines = {line.what: line for line in fingerprint.table(rows(0.15))}
    line = lines["Uniqueness Score, LTRC over ipguard"]
    assert line.met and line.found.startswith("5.33 (5.33 to 5.33): 0.800 over 0.150")
    assert fingerprint.table(rows(0.3))[0].met is False
    mixed = rows(0.15)
    mixed[9]["uniqueness"] = mixed[10]["uniqueness"] = 0.5
    ratio, low, high = fingerprint.ratio_bound(mixed[:9], mixed[9:])
    assert low < ratio < high and low < 4


@pytest.mark.parametrize(("field", "value"), [("false_positives", ["i3"]), ("recognised", 0.9), ("seconds", 61.0)])
def test_short_figures_are_said(field: str, value: object) -> None:
    assert not any(line.met is False for line in fingerprint.table(rows(0.15)))
    short = [line for line in fingerprint.table(rows(0.15, **{field: value})) if line.met is False]
    assert len(short) == 1


def test_nothing_measured() -> None:
    assert fingerprint.table([]) == []


def test_plot(tmp_path: Path) -> None:
    fingerprint.draw_roc(rows(0.15), tmp_path / "roc.svg")
    assert "area 0.900" in (tmp_path / "roc.svg").read_text()
