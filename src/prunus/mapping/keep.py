"""Times of layers alone and of networks as wholes, kept in tables of their own in latency.sqlite."""

import json
import sqlite3
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any, final

from prunus.compiler.latency import Latencies
from prunus.errors import PrunusWarning

LAYERS = """
create table if not exists layer_times (
    machine text not null, library text not null, threads integer not null, target text not null,
    precision text not null, signature text not null, scheme text not null, sparsity real not null, ms real not null,
    date text not null,
    primary key (machine, library, threads, target, precision, signature, scheme, sparsity)
)
"""
NETWORKS = """
create table if not exists network_times (
    machine text not null, library text not null, threads integer not null, target text not null,
    precision text not null, network text not null, content text not null, date text not null,
    primary key (machine, library, threads, target, precision, network)
)
"""
HERE = "machine = ? and library = ? and threads = ? and target = ? and precision = ? and date >= ?"


@final
@dataclass(frozen=True)
class Entry:
    """What a time is of. scheme: text form, or "dense"; the zeros are random, by a fixed seed."""

    signature: str
    scheme: str
    sparsity: float


@final
@dataclass(frozen=True)
class Kept:
    """The file, seen from one CPU, kernel library, number of threads, target and precision. since: ISO 8601, UTC;
    what was kept before isn't seen."""

    file: Latencies
    target: str
    precision: str
    since: str = ""

    @property
    def _here(self) -> tuple[object, ...]:
        return (*astuple(self.file.place), self.target, self.precision)

    def times(self) -> dict[Entry, float]:
        """All milliseconds of layers that hold here. Warns of other CPUs' times, which don't."""

        def find(db: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            db.execute(LAYERS)
            rows = db.execute(
                f"select signature, scheme, sparsity, ms from layer_times where {HERE}", (*self._here, self.since)
            )
            strangers = db.execute(
                "select distinct machine from layer_times where machine != ? except select machine from latency",
                (self.file.place.machine,),
            )  # those in the other table have been named when the file was opened
            return rows.fetchall(), strangers.fetchall()

        rows, strangers = self.file.run(find) or ([], [])
        for (machine,) in strangers:
            text = f"{self.file.path}: times measured on {machine} are ignored: this is {self.file.place.machine}"
            warnings.warn(PrunusWarning(text), stacklevel=2)
        return {Entry(signature, scheme, sparsity): ms for signature, scheme, sparsity, ms in rows}

    def add(self, entry: Entry, ms: float) -> None:
        """Keep a layer's time; an earlier one of the same is replaced."""
        row = (*self._here, entry.signature, entry.scheme, entry.sparsity, ms, now())
        self._write(LAYERS, f"insert or replace into layer_times values ({', '.join('?' * len(row))})", row)

    def network(self, digest: str) -> dict[str, Any] | None:
        """What was kept of a network as a whole, if anything."""

        def find(db: sqlite3.Connection) -> Any:
            db.execute(NETWORKS)
            query = f"select content from network_times where {HERE} and network = ?"
            return db.execute(query, (*self._here, self.since, digest)).fetchone()

        found = self.file.run(find)
        return None if found is None else json.loads(found[0])

    def add_network(self, digest: str, content: Mapping[str, Any]) -> None:
        """Keep what was measured of a network as a whole."""
        row = (*self._here, digest, json.dumps(content, sort_keys=True), now())
        self._write(NETWORKS, f"insert or replace into network_times values ({', '.join('?' * len(row))})", row)

    def _write(self, table: str, statement: str, row: tuple[object, ...]) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute(table)
            db.execute(statement, row)

        self.file.run(write)


def now() -> str:
    """ISO 8601 in UTC, to seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
