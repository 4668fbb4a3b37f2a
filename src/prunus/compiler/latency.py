"""latency.sqlite: measured times of candidates, by machine, target, threads and what was measured.

One row per measured candidate. Several processes may use the file at once; a run that is killed loses the layer that it
was measuring. What another CPU or another kernel library measured is never used.
"""

import json
import sqlite3
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prunus.errors import PrunusWarning

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")
WAIT_S = 30.0  # for another process's write
COLUMNS = ("machine", "library", "threads", "signature", "choice", "budget_s", "seconds", "date")
TABLE = """
create table if not exists latency (
    machine text not null, library text not null, threads integer not null, signature text not null,
    choice text not null, budget_s real not null, seconds real not null, date text not null,
    primary key (machine, library, threads, signature, choice)
)
"""

Candidate = TypeVar("Candidate", bound="DataclassInstance")  # a Choice, a Chain, a width


@dataclass(frozen=True)
class Place:
    """Where times hold: the CPU's name, the digest of the kernel library, the number of threads."""

    machine: str
    library: str
    threads: int


@dataclass(frozen=True)
class Latencies:
    """The file, seen from one place. Whatever is wrong with it stops nothing and is said in a PrunusWarning: a damaged
    one is moved aside and a new one begun; one that can't be written keeps nothing."""

    path: Path
    place: Place

    def find(self, signature: str, budget_s: float) -> dict[str, float]:
        """Seconds of the candidates that were measured for at least `budget_s`, by their JSON."""
        query = """select choice, seconds from latency
                   where machine = ? and library = ? and threads = ? and signature = ? and budget_s >= ?"""
        return dict(
            self.run(lambda db: db.execute(query, (*astuple(self.place), signature, budget_s)).fetchall()) or ()
        )

    def add(self, signature: str, budget_s: float, times: Mapping[Candidate, float]) -> None:
        """Keep measured seconds; earlier ones of the same candidates are replaced."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        place: tuple[object, ...] = astuple(self.place)
        rows = [(*place, signature, as_json(choice), budget_s, seconds, date) for choice, seconds in times.items()]
        statement = "insert or replace into latency values (?, ?, ?, ?, ?, ?, ?, ?)"
        self.run(lambda db: db.executemany(statement, rows))

    def say_strangers(self) -> None:
        """Warn where the file holds times of other CPUs, which aren't used."""
        query = "select distinct machine from latency where machine != ? order by machine"
        for (machine,) in self.run(lambda db: db.execute(query, (self.place.machine,)).fetchall()) or ():
            text = f"{self.path}: times measured on {machine} are ignored: this is {self.place.machine}"
            warnings.warn(PrunusWarning(text), stacklevel=3)

    def run(self, action: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """What `action` gives, as one transaction; None where the file can't be used, which is said in a warning."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as db, db:
                return action(db)
        except (OSError, sqlite3.Error) as error:
            warnings.warn(PrunusWarning(f"{self.path}: {error}; measured times aren't kept"), stacklevel=4)
            return None

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            warnings.warn(PrunusWarning(f"{self.path}: {error}; moved to {aside.name}, measuring anew"), stacklevel=5)
            return _connect(self.path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=WAIT_S)
    try:
        db.execute("pragma journal_mode = wal")
        db.execute(TABLE)
        if [column[1] for column in db.execute("pragma table_info(latency)")] != list(COLUMNS):
            raise sqlite3.DatabaseError("a table of another version")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def as_json(choice: Candidate) -> str:
    """A choice as one line of JSON: the name under which its time is kept."""
    return json.dumps(asdict(choice), sort_keys=True)
