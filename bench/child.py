"""Rows that are measured in a process of their own: a crash of an engine becomes a row with "failure"."""

import json
import subprocess
import sys
from collections.abc import Callable

from bench import store
from bench.measure import NotSupported

MARK = "result:"


def run_child(module: str, *arguments: str) -> store.Row:
    """The row that `python -m module --child ...` prints with `print_row`."""
    command = [sys.executable, "-m", module, "--child", *arguments]
    done = subprocess.run(command, cwd=store.ROOT, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        return dict(json.loads(lines[-1].removeprefix(MARK)))
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return {"failure": said[-1]}


def print_row(measure: Callable[[], store.Row]) -> None:
    """What the child says: its row, or why this machine can't do what the row is about."""
    try:
        row = measure()
    except NotSupported as reason:
        row = {"unsupported": str(reason)}
    print(MARK + json.dumps(row), flush=True)
