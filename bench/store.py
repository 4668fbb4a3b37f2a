"""Results as JSON lines, one object per measurement; a file is replaced as a whole, so none is ever half-written."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prunus.runtime.cpu import describe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
ENGINE_PACKAGES = (
    "onnxruntime", "openvino", "ncnn", "MNN", "ai-edge-litert", "torch", "scipy", "apache-tvm", "deepsparse",
)  # fmt: skip

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The rows of a file, oldest first; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def append(path: Path, row: Row) -> None:
    """Add a row; a reader sees the file with all of it or without it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, suffix=".new", delete=False) as file:
        file.write(before + json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """The last row of each key, in the order in which keys first came."""
    found: dict[str, Row] = {}
    for row in rows:
        found[row["key"]] = row
    return found


def of_one_machine(rows: Iterable[Row], wanted: Callable[[Row], set[str]]) -> dict[str, Row]:
    """The last row of each key that one machine has: the newest machine with all keys that are wanted of it, or where
    none is complete the one that lacks fewest. `wanted`: from a row of a machine to keys. Of no rows none.
    """
    by_machine: dict[str, list[Row]] = {}
    for row in rows:
        machine = json.dumps(row["machine"], sort_keys=True)
        by_machine[machine] = [*by_machine.pop(machine, []), row]  # the one measured last is last
    sets = [latest(group) for group in by_machine.values()]
    lacks = [len(wanted(group[-1]) - set(found)) for group, found in zip(by_machine.values(), sets, strict=True)]
    return min(zip(lacks, range(0, -len(sets), -1), sets, strict=True), key=lambda s: s[:2])[2] if sets else {}


def is_measured(rows: Iterable[Row], key: str, commit: str) -> bool:
    """Is there a full measurement of `key` at `commit`? Quick ones and failures don't count."""
    found = (row for row in rows if (row.get("key"), row.get("commit")) == (key, commit))
    return any(not row["quick"] and "failure" not in row for row in found)


def commit() -> str:
    """The short hash of HEAD, with "-dirty" where code differs from it (results and documents may)."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + "-dirty" if _git("status", "--porcelain", "--", "src", "bench/*.py", "pyproject.toml") else head


def stamp() -> Row:
    """What every row says about where and when it was measured; sizes in bytes."""
    cpu = describe()
    packages = {name: found for name in ENGINE_PACKAGES if (found := _version(name))}
    return {
        "commit": commit(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu.name, "target": cpu.best_target, "cores": cpu.physical_cores, "l1": cpu.l1_bytes,
            "l2": cpu.l2_bytes, "l3": cpu.l3_bytes,
        },
        "packages": packages,
    }  # fmt: skip


def machine_text(row: Row) -> str:
    """One line on the machine and engines of a row."""
    m = row["machine"]
    caches = ", ".join(f"{name.upper()} {m[name] >> 10:,} KiB" for name in ("l1", "l2", "l3") if m[name])
    engines = ", ".join(f"{name} {number}" for name, number in row["packages"].items())
    return f"{m['cpu']} ({m['target']}, {m['cores']} cores, {caches}); {engines}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
