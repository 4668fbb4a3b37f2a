"""A recurrent network fed frame by frame, in engines that keep its states and in those that have them handed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from prunus.benchmark.engines import OnnxRuntime
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import Times, time_interleaved
from prunus.runtime.session import Session

Frames = NDArray[np.float32]


class Stream(Protocol):
    """A network in an engine. `run`: from a frame float32[1, 1, n] to what it answers, in the state it is in."""

    def reset(self) -> None: ...

    def run(self, frame: Frames) -> NDArray[Any]: ...


@final
class Kept:
    """A session compiled with `streaming`: it keeps the states itself."""

    def __init__(self, session: Session) -> None:
        (self.name,) = [port.name for port in session.get_inputs()]
        self.session, self.reset = session, session.reset

    def run(self, frame: Frames) -> NDArray[Any]:
        return self.session.run(None, {self.name: frame})[0]


@final
class Handed:
    """The same file in onnxruntime: states are inputs, and outputs the next ones, in the same order. They begin as
    zeros.
    """

    def __init__(self, path: Path, threads: int) -> None:
        engine = OnnxRuntime(path, Setting(threads)).sessions.get()
        self.name, *self.states = [port.name for port in engine.get_inputs()]
        shapes = [[n if isinstance(n, int) else 1 for n in port.shape] for port in engine.get_inputs()[1:]]
        self.zeros = [np.zeros(shape, np.float32) for shape in shapes]
        self.engine = engine
        self.reset()

    def reset(self) -> None:
        self.feeds = dict(zip(self.states, self.zeros, strict=True))

    def run(self, frame: Frames) -> NDArray[Any]:
        self.feeds[self.name] = frame
        answer, *states = self.engine.run(None, self.feeds)
        self.feeds.update(zip(self.states, states, strict=True))
        result: NDArray[Any] = answer
        return result


def play(stream: Stream, frames: Frames) -> NDArray[Any]:
    """The answers to the frames of a recording, float32[t, n], from a new beginning; frames: float32[t, c]."""
    stream.reset()
    return np.concatenate([stream.run(frame[None, None])[0] for frame in frames])


def race(
    streams: Mapping[str, Stream], frames: Frames, time_s: float, progress: Callable[[str], None] | None = None
) -> dict[str, Times]:
    """Seconds per frame of each stream, in turns; a timed call is a whole recording from a reset on."""

    def call(stream: Stream) -> Callable[[], object]:
        singles = [frame[None, None] for frame in frames]

        def whole() -> None:
            stream.reset()
            for frame in singles:
                stream.run(frame)

        return whole

    calls = {name: call(stream) for name, stream in streams.items()}
    times = time_interleaved(calls, time_s, min(1.0, time_s / 5), progress=progress)
    return {name: Times(found.calls / len(frames), found.rounds / len(frames)) for name, found in times.items()}
