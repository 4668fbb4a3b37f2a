"""Opening a model for the verbs that run it."""

from pathlib import Path

from prunus.benchmark.sessions import Setting, open_session
from prunus.cli.output import Printer
from prunus.runtime.session import Session, check_threads


def open_model(
    printer: Printer,
    model: Path,
    threads: int | None,
    shapes: dict[str, tuple[int, ...]],
    *,
    tune: str = "fast",
    strict: bool = False,
    cc: str | None = None,
) -> Session:
    """Load an artefact or compile a model, with progress shown."""
    setting = Setting(check_threads(threads), shapes, tune=tune, fallback=None if strict else "onnxruntime", cc=cc)
    with printer.progress(f"opening {model.name}") as step:
        return open_session(model, setting, step)
