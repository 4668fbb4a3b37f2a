"""The .fp file: what is read is what was written, and every alteration is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.errors import FingerprintError
from prunus.fingerprint import file
from prunus.fingerprint.file import Fingerprint, NullModel, read_fingerprint, write_fingerprint
from tests.fingerprint.toy import made_up

ALTERED: dict[str, Any] = {
    "name": "other.onnx", "model": "00" * 32, "shape": [1, 4, 16], "low": [-1.0], "high": [2.0], "classes": 11,
    "method": {"kind": "c"}, "secret": "11" * 32, "salt": "22" * 32, "created": "2020-01-01T00:00:00+00:00",
    "alpha": 0.05, "first": [1] * 20, "targets": [3] * 20, "own": 19, "null": [], "origin": "images",
}  # fmt: skip


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    _, _, length = file._HEAD.unpack_from(data)
    start = file._HEAD.size
    return json.loads(data[start : start + length]), data[start + length :]


def rewrite(path: Path, header: dict[str, Any], blob: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(file._HEAD.pack(file.MAGIC, file.SCHEMA, len(text)) + text + blob)


def said(path: Path) -> str:
    with pytest.raises(FingerprintError) as caught:
        read_fingerprint(path)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_fingerprint(tmp_path / "owner.fp", made_up())
    return tmp_path / "owner.fp"


@pytest.mark.parametrize("origin", ["noise", "images"])
def test_read_is_written(origin: str, tmp_path: Path) -> None:
    made = made_up(origin=origin)
    write_fingerprint(tmp_path / "owner.fp", made)
    found = read_fingerprint(tmp_path / "owner.fp")
    assert found.root == made.root
    np.testing.assert_array_equal(found.examples, made.examples)
    np.testing.assert_array_equal(found.targets, made.targets)
    arrays = {"examples": None, "targets": None, "starts": None}
    assert replace(found, **arrays).__dict__.items() >= {"name": made.name, "null": made.null}.items()
    assert (found.starts is None) == (origin == "noise")


def test_all_fields_are_altered_here(path: Path) -> None:
    assert ALTERED.keys() == parts(path)[0].keys() - {"digests", "root"} == file._Header.model_fields.keys()


@pytest.mark.parametrize("field", ALTERED)
def test_altered_field_is_named(field: str, path: Path) -> None:
    header, blob = parts(path)
    rewrite(path, {**header, field: ALTERED[field]}, blob)
    expected = "examples: found" if field == "origin" else f"{field}: was altered"
    assert f"owner.fp: {expected}" in said(path)


@pytest.mark.parametrize("field", ALTERED)
def test_field_of_another_type_is_named(field: str, path: Path) -> None:
    header, blob = parts(path)
    rewrite(path, {**header, field: {"a": 1} if field != "method" else 3}, blob)
    assert f"owner.fp: {field}" in said(path)
    del header[field]
    rewrite(path, header, blob)
    assert f"owner.fp: {field}" in said(path)


@pytest.mark.parametrize("place", range(0, 20 * 64, 211))
def test_one_byte_of_the_examples(place: int, path: Path) -> None:
    header, blob = parts(path)
    changed = bytearray(blob)
    changed[place] ^= 1
    rewrite(path, header, bytes(changed))
    assert "owner.fp: examples: was altered" in said(path)


def test_every_byte_counts(path: Path) -> None:
    """Whatever byte is altered, the file isn't read as if nothing had happened."""
    data = path.read_bytes()
    root = read_fingerprint(path).root
    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 4
        path.write_bytes(bytes(changed))
        try:
            found = read_fingerprint(path)
        except FingerprintError as error:
            assert "owner.fp: " in str(error)
        else:
            raise AssertionError(f"byte {place}: read with root {found.root[:8]}, was {root[:8]}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: replace(f, targets=(f.targets + 1) % 10), "targets: they don't follow from the secret"),
        (lambda f: replace(f, secret=b"\7" * 32), "targets: they don't follow"),
        (lambda f: replace(f, examples=np.zeros_like(f.examples)), "examples: found one 255 levels from its start"),
        (lambda f: replace(f, first=f.first[:-1]), "first: found 19 labels, expected 20"),
        (lambda f: replace(f, own=21), "own: found 21 matches, expected 20"),
        (lambda f: replace(f, null=(NullModel("a", "", 30),)), "null: found 30 matches of a, expected 20"),
    ],
)
def test_consistent_forgery(change: Callable[[Fingerprint], Fingerprint], expected: str, tmp_path: Path) -> None:
    """With all hashes made anew: what follows from the secret can't be chosen."""
    write_fingerprint(tmp_path / "owner.fp", change(made_up()))
    assert f"owner.fp: {expected}" in said(tmp_path / "owner.fp")


def test_what_is_no_fingerprint(path: Path) -> None:
    data = path.read_bytes()
    for changed, expected in (
        (b"PK\x03\x04" + data, "not a fingerprint"),
        (b"", "not a fingerprint"),
        (data[:100], "header: found 80 bytes"),
        (data[:-1], "examples: found 1279 bytes, expected 1280"),
        (data[:8] + b"\2" + data[9:], "schema: found 2, expected 1"),
    ):
        path.write_bytes(changed)
        assert expected in said(path)
    assert "none.fp: No such file" in said(path.parent / "none.fp")


def test_digests_and_root(path: Path) -> None:
    header, blob = parts(path)
    rewrite(path, {**header, "root": "00" * 32}, blob)
    assert "root: found 0000" in said(path)
    rewrite(path, {**header, "digests": {**header["digests"], "extra": "1"}}, blob)
    assert "extra: was altered" in said(path)
    rewrite(path, {**header, "digests": None}, blob)
    assert "digests: found a NoneType" in said(path)
