"""What verbs print: tables, plain lines, progress, JSON. Results go to stdout, progress to stderr."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from prunus.cli.live import watching
from prunus.runtime.atomic import write_atomically

WIDE = 240  # columns where the output isn't a terminal: nothing is cut off


@final
@dataclasses.dataclass(frozen=True)
class Printer:
    """Where a verb's words go. With `--json -` stdout has the JSON only."""

    quiet: bool = False
    json: str | None = None

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """Print a table; a column whose cells all begin like numbers is set flush right."""
        if self._silent:
            return
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(columns):
            numeric = all(_like_number(row[i]) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console(sys.stdout).print(table)

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        if not self._silent:
            print(text)

    def note(self, text: str) -> None:
        """Print a line on stderr that isn't part of the result."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def write_json(self, data: Any) -> None:
        """Write `data` where `--json` says, if it was given.

        Raises OutputError: it can't be written.
        """
        if self.json is None:
            return
        text = json.dumps(plain(data), indent=2, allow_nan=False) + "\n"
        if self.json == "-":
            sys.stdout.write(text)
        else:
            write_atomically(self.json, text.encode())

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[object], None]]:
        """A function that says which step of long work begins, as `str` tells it.

        On a terminal a bar with the time spent, and below it how the search for each layer's kernel goes (a `Tuning`);
        else a plain line each 5 seconds at most.
        """
        if self.quiet:
            yield lambda step: None
        elif sys.stderr.isatty():
            with watching(what, console(sys.stderr)) as show:
                yield show
        else:
            yield _Lines(what)

    @property
    def _silent(self) -> bool:
        return self.quiet or self.json == "-"


@final
class _Lines:
    """Plain progress lines, not too many, and none for work that is done in a moment."""

    def __init__(self, what: str) -> None:
        self.what, self.last = what, time.monotonic()

    def __call__(self, step: object) -> None:
        now = time.monotonic()
        if now - self.last >= 5:
            self.last = now
            print(f"{self.what}: {step}", file=sys.stderr, flush=True)


def console(stream: Any) -> Console:
    """A rich console on a stream, wide where that is no terminal."""
    return Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False)


def plain(data: Any) -> Any:
    """`data` as JSON has it: dataclasses as objects, numbers that aren't finite as null."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        fields = dataclasses.fields(data)
        return {field.name: plain(getattr(data, field.name)) for field in fields}
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, set | frozenset):
        return sorted(plain(value) for value in data)
    if data is None or isinstance(data, bool | str):
        return data
    if hasattr(data, "tolist"):
        return plain(data.tolist())
    if isinstance(data, int):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return str(data)


def number(value: float | None, digits: int = 3, scale: float = 1.0) -> str:
    """A number with `digits` places, "-" for None."""
    return "-" if value is None else f"{value * scale:.{digits}f}"


def megabytes(n_bytes: float | None) -> str:
    """Bytes in MB (1e6), "-" for None."""
    return number(n_bytes, 2 if (n_bytes or 0) < 1e8 else 0, 1e-6)


def _like_number(cell: str) -> bool:
    """Is it a number, perhaps with more behind it; a list of numbers is none."""
    return cell in ("", "-") or ("  " not in cell and cell.lstrip("+-~")[:1].isdigit())
