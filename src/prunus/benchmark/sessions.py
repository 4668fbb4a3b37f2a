"""A session of whatever file the user names: artefacts are loaded, ONNX files compiled."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from prunus.runtime.session import Session, load

_MAGIC = b"PRUNUS\r\n"


@final
@dataclass(frozen=True)
class Setting:
    """How models are opened; all but `threads`, `shapes` and `streams` matter to Prunus alone.

    shapes: of the inputs, by name, where the model leaves them open. streams: callers at the same time, each with as
    many threads.
    """

    threads: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    target: str | None = None
    precision: str = "fp32"
    tune: str = "fast"
    fallback: str | None = "onnxruntime"
    cc: str | None = None
    streams: int = 1


def is_artefact(path: Path) -> bool:
    """Is this a compiled network, by its name or its first bytes?"""
    if path.suffix == ".prunus":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False  # opening it as a model says what is wrong with it


def open_session(path: Path, setting: Setting, progress: Callable[[object], None] | None = None) -> Session:
    """Load an artefact, or compile a model.

    Raises PrunusError: as `prunus.load` and `prunus.compile` do.
    """
    if is_artefact(path):
        return load(path, setting.threads, setting.streams)
    from prunus.compiler.compile import compile

    return compile(
        path,
        target=setting.target,
        precision=setting.precision,
        threads=setting.threads,
        input_shapes=setting.shapes or None,
        tune=setting.tune,
        fallback=setting.fallback,
        cc=setting.cc,
        streams=setting.streams,
        progress=progress,
    )
