"""Pictures that verbs write: SVG or PNG, by the name; the same bytes each time."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.extras import missing_package
from prunus.runtime.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_drawable(option: str) -> None:
    """Can pictures be made at all? To be asked before anything is measured. Raises MissingExtraError: no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package(option, error) from error


def new_figure(size: tuple[float, float]) -> "Figure":
    """An empty one, in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "prunus"
    return Figure(figsize=size, layout="constrained")


def save(path: Path, figure: "Figure") -> None:
    """Write it. Raises OutputError: it can't be written."""
    stream = io.BytesIO()
    kind = path.suffix.lstrip(".").lower() or "svg"
    figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None, dpi=120)
    write_atomically(path, stream.getvalue())
