"""Files are whole or not there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus.errors import OutputError
from prunus.runtime.atomic import write_atomically


def test_writes_one_buffer_or_several(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"one")
    write_atomically(str(tmp_path / "b"), [b"one", memoryview(b"two"), bytearray(b"three")])
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").read_bytes() == b"onetwothree"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a: can't be written: No space left on device"):
        write_atomically(path, breaks())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_full_device() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OutputError, match=r"/dev/full.*No space left"):
        write_atomically("/dev/full", b"x" * 100000)


@pytest.mark.parametrize(("name", "fact"), [("missing/a", "No such file"), ("", "is a folder")])
def test_places_that_dont_take_files(tmp_path: Path, name: str, fact: str) -> None:
    with pytest.raises(OutputError, match=fact):
        write_atomically(tmp_path / name, b"x")
    assert list(tmp_path.iterdir()) == []


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_mode_follows_the_mask_or_the_old_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    (tmp_path / "a").chmod(0o604)
    write_atomically(tmp_path / "a", b"y")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604
