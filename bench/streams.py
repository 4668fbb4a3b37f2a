"""Recurrent networks frame by frame: each file compiled with its states inside, beside the dense one in onnxruntime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import prunus
from bench import store
from prunus.benchmark.agreement import difference
from prunus.benchmark.timing import speed_ratio
from prunus.demo.speech.frames import Frames, Handed, Kept, Stream, play, race

ERROR = 1e-4  # largest difference over largest answer
PEER = "onnxruntime 1x"


def measure(files: Mapping[str, Path], frames: Frames, threads: int, time_s: float, tune: str = "full") -> store.Row:
    """Microseconds per frame of each file and of the first one, the dense, in onnxruntime; how many times as fast as
    that. Answers to the frames are compared with onnxruntime's first.
    """
    streams: dict[str, Stream] = {PEER: Handed(next(iter(files.values())), threads)}
    errors, kernels = {}, {}
    for name, path in files.items():
        session = prunus.compile(path, threads=threads, tune=tune, streaming=True)
        streams[name] = Kept(session)
        errors[name] = difference([play(streams[name], frames)], [play(Handed(path, threads), frames)])
        assert errors[name] <= ERROR, f"{path}: differs from onnxruntime by {errors[name]:.1e}"
        kernels[name] = [row.kernel for row in session.explain() if row.op == "recurrent"]
    times = race(streams, frames, time_s)
    ratios = {name: speed_ratio(times[name], times[PEER]) for name in files}
    return {
        "threads": threads, "frames": len(frames),
        "us": {name: round(found.median_s * 1e6, 2) for name, found in times.items()},
        "ratios": {name: [round(v, 2) for v in (r.lower, r.median, r.upper)] for name, r in ratios.items()},
        "errors": {name: float(np.round(error, 9)) for name, error in errors.items()}, "kernels": kernels,
    }  # fmt: skip
