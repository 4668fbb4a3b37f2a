"""Load time and peak memory of a model in an engine, measured in a process of its own.

Run as `python -m prunus.benchmark.footprint`, it reads what to open from stdin and prints one line
of JSON.
"""

import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import final

import numpy as np

from prunus.benchmark.engines import ENGINES, open_engine
from prunus.benchmark.feeds import Feeds
from prunus.benchmark.sessions import Setting

_MARK = "footprint:"


@final
@dataclass(frozen=True)
class Footprint:
    """load_s: from the file to a session that is ready, without the import of the engine.

    peak_bytes: most resident memory of the whole process after load and one run on each stream.
    base_bytes: what it had before the engine was imported (Python and numpy).
    """

    load_s: float
    peak_bytes: int
    base_bytes: int


def measure_footprint(
    engine: str, model: Path, setting: Setting, feeds: Path, limit_s: float = 600.0
) -> Footprint | None:
    """Open `model` in a fresh process and run it once with the arrays of the npz file `feeds`.

    None where that process fails or takes longer than `limit_s`.
    """
    task = json.dumps({"engine": engine, "model": str(model), "setting": asdict(setting), "feeds": str(feeds)})
    command = [sys.executable, "-m", "prunus.benchmark.footprint"]
    try:
        done = subprocess.run(command, input=task, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    return Footprint(**json.loads(lines[-1][len(_MARK) :])) if lines else None


def peak_bytes() -> int:
    """Most resident memory this process has had.

    Linux's VmHWM where there is one: ru_maxrss of a new process starts from its parent's.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_here(engine: str, model: Path, setting: Setting, feeds: Feeds) -> Footprint:
    """As `measure_footprint`, in this process, which should have done nothing else."""
    base = peak_bytes()
    for package in ENGINES[engine].packages:
        import_module(package)
    start = time.perf_counter()
    opened = open_engine(engine, model, setting)
    load_s = time.perf_counter() - start
    with ThreadPoolExecutor(setting.streams) as callers:
        list(callers.map(opened.run, [feeds] * setting.streams))
    return Footprint(load_s, peak_bytes(), base)


def _main() -> None:
    task = json.load(sys.stdin)
    setting = dict(task["setting"])
    setting["shapes"] = {name: tuple(shape) for name, shape in setting["shapes"].items()}
    with np.load(task["feeds"]) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    found = measure_here(task["engine"], Path(task["model"]), Setting(**setting), feeds)
    print(_MARK + json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    _main()
