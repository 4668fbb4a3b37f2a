"""Accuracies that were had before, as JSON lines: a search that was stopped, or another one, doesn't train again.

A file may hold those of several networks, and several processes may write to it. A line that was cut off by a crash is
passed over.
"""

import json
import os
from pathlib import Path
from typing import IO, final

from filelock import FileLock

from prunus.errors import OutputError
from prunus.mapping.search import digest


@final
class Memory:
    """Accuracies by what becomes of each weight, for one identity (of network, data and effort).

    path: None remembers for as long as the object lives.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        self.path, self.identity = path, identity
        self._known: dict[str, float] = {}
        self._read_to = 0

    def get(self, what: dict[str, str]) -> float | None:
        """The accuracy; None where nobody had it yet."""
        key = self._key(what)
        if key not in self._known:
            self._read_on()
        return self._known.get(key)

    def put(self, what: dict[str, str], accuracy: float) -> None:
        """Keep an accuracy.

        Raises OutputError: the file can't be written.
        """
        key = self._key(what)
        self._known[key] = accuracy
        if self.path is None:
            return
        row = {"key": key, "identity": self.identity, "accuracy": accuracy, "mapping": what}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
                _append(file, json.dumps(row).encode())
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror or error}") from error

    def __len__(self) -> int:
        self._read_on()
        return len(self._known)

    def _key(self, what: dict[str, str]) -> str:
        return digest([self.identity, what])

    def _read_on(self) -> None:
        """Take in the whole lines that were added since."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                if row["identity"] == self.identity:
                    self._known[str(row["key"])] = float(row["accuracy"])
            except (ValueError, KeyError, TypeError):
                continue


def _append(file: IO[bytes], line: bytes) -> None:
    """Add a line in one write, after the end of whatever was cut off before it."""
    file.seek(0, os.SEEK_END)
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            line = b"\n" + line
    file.write(line + b"\n")
    file.flush()
    os.fsync(file.fileno())
