"""Commitments: what they bind, whose they are, when they were made."""

import json
import stat
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from prunus.errors import FingerprintError
from prunus.fingerprint.commitment import check_commitment, commit, read_commitment, write_commitment
from tests.fingerprint.toy import made_up

WHEN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    pytest.importorskip("cryptography", reason="signatures: pip install cryptography")
    return tmp_path / "owner.pem"


def test_holds_for_its_fingerprint_only(tmp_path: Path) -> None:
    made = commit(made_up(), time=WHEN)
    write_commitment(tmp_path / "c.json", made)
    found = read_commitment(tmp_path / "c.json")
    assert found == made and found.time == "2026-03-01T00:00:00+00:00"
    check_commitment(found, made_up())
    for other in (made_up(21), made_up(null=(2, 4)), replace(made_up(), salt=b"\1" * 32)):
        with pytest.raises(FingerprintError, match=r"c\.json: hash: .* another fingerprint"):
            check_commitment(found, other, "c.json")


def test_says_nothing_of_the_fingerprint() -> None:
    assert made_up().root[:16] not in json.dumps(asdict(commit(made_up(), time=WHEN)))
    assert commit(made_up(), time=WHEN).hash != commit(replace(made_up(), salt=b"\2" * 32), time=WHEN).hash


def test_has_to_be_older_than_the_suspect() -> None:
    made = commit(made_up(), time=WHEN)
    check_commitment(made, made_up(), before=datetime(2026, 3, 2, tzinfo=UTC))
    with pytest.raises(FingerprintError, match=r"time: found 2026-03-01.*expected before 2026-02-01"):
        check_commitment(made, made_up(), before=datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(FingerprintError, match="hash"):  # backdated
        check_commitment(replace(made, time="2026-01-01T00:00:00+00:00"), made_up())


def test_signature(key: Path) -> None:
    first, second = (commit(made_up(), key, WHEN) for _ in range(2))
    assert first == second and first.public_key  # the key was made once and read then
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    check_commitment(first, made_up())
    other = commit(made_up(), key.with_name("other.pem"), WHEN)
    for field, value in (
        ("signature", other.signature), ("public_key", other.public_key), ("signature", ""), ("hash", "00" * 32),
        ("time", "2025-01-01T00:00:00+00:00"), ("public_key", "zz"), ("public_key", ""),
    ):  # fmt: skip
        with pytest.raises(FingerprintError, match=r"c\.json: (signature|public_key): "):
            check_commitment(replace(first, **{field: value}), made_up(), "c.json")


def test_a_key_of_another_kind(key: Path) -> None:
    key.write_text("no key")
    with pytest.raises(FingerprintError, match=r"owner\.pem: not a private key"):
        commit(made_up(), key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hash": 3}, "hash: found 3, expected str"),
        ({"more": 1}, "more: found 1, expected one of"),
        ({"version": 2}, "version: found 2, expected 1"),
        ({"version": "1"}, "version: found '1', expected int"),
    ],
)
def test_altered(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**asdict(commit(made_up(), time=WHEN)), **change}))
    with pytest.raises(FingerprintError, match=said):
        read_commitment(path)


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(FingerprintError, match="No such file"):
        read_commitment(path)
    for text, said in (("{", "not JSON"), ("[]", "found a list")):
        path.write_text(text)
        with pytest.raises(FingerprintError, match=said):
            read_commitment(path)
    with pytest.raises(FingerprintError, match="time: found 'soon'"):
        check_commitment(replace(commit(made_up(), time=WHEN), time="soon"), made_up())
