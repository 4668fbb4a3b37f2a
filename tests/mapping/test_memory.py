"""What was evaluated before is known again, whatever happened to the file."""

from pathlib import Path

import pytest

from prunus.errors import OutputError
from prunus.mapping.memory import Memory

A, B = {"a.weight": "bcr:8x64 0.9"}, {"a.weight": "bcr:8x64 0.8", "b.weight": "filter 0.5"}


def test_kept_by_identity_and_mapping(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.jsonl"
    memory = Memory(path, "net")
    assert memory.get(A) is None
    memory.put(A, 0.5)
    memory.put(B, 0.25)
    again = Memory(path, "net")
    assert (again.get(A), again.get(dict(reversed(B.items()))), again.get({})) == (0.5, 0.25, None)
    assert Memory(path, "other").get(A) is None
    assert Memory(None, "net").get(A) is None


def test_others_may_write_meanwhile(tmp_path: Path) -> None:
    one, other = Memory(tmp_path / "kept.jsonl", "net"), Memory(tmp_path / "kept.jsonl", "net")
    assert one.get(A) is None
    other.put(A, 0.5)
    assert one.get(A) == 0.5


@pytest.mark.parametrize("cut", [2, 5, 60])
def test_a_line_that_was_cut_off_costs_itself_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "kept.jsonl"
    memory = Memory(path, "net")
    memory.put(A, 0.5)
    memory.put(B, 0.25)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Memory(path, "net")
    assert (again.get(A), again.get(B)) == (0.5, None)
    again.put(B, 0.75)
    assert Memory(path, "net").get(B) == 0.75
    assert Memory(path, "net").get(A) == 0.5


def test_a_file_that_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/kept"):
        Memory(tmp_path / "file" / "kept.jsonl", "net").put(A, 0.5)
