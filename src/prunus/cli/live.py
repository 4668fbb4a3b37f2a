"""Progress on a terminal: a bar, and for a search over layers what it has found."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prunus.compiler.watch import Tuning
from prunus.training.progress import TrainingStep

LAST = 5  # layers that stay in sight


@contextmanager
def watching(what: str, console: Console) -> Iterator[Callable[[object], None]]:
    """A function that shows the step of `what` that begins; all of it goes from the screen at the end.

    A TrainingStep moves the bar. So does a Tuning, for which it has a place for each layer and which fills a table: the
    layers decided last and the one that is being measured, each with its best choice so far.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(24), TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(), console=console,
    )  # fmt: skip
    task = bar.add_task(what, total=None, count="")
    decided: deque[Tuning] = deque(maxlen=LAST)
    with Live(bar, console=console, transient=True, refresh_per_second=4) as live:

        def show(step: object) -> None:
            if isinstance(step, TrainingStep):
                bar.update(
                    task, description=f"{what}: {step.phase}, loss {step.loss:.4f}{step.more}", total=step.total,
                    completed=step.done, count=f"step {step.done} of {step.total}",
                )  # fmt: skip
                return
            if not isinstance(step, Tuning):
                bar.update(task, description=f"{what}: {step}")
                return
            place = step.index + step.decided
            bar.update(
                task, description=f"{what}: {step.layer}", total=step.layers, completed=place,
                count=f"{place} of {step.layers} layers",
            )  # fmt: skip
            if step.decided:
                decided.append(step)
            live.update(Group(bar, _table([*decided] if step.decided else [*decided, step])))

        yield show


def _table(steps: list[Tuning]) -> Table:
    """A line per layer; the last one may still be measured."""
    table = Table.grid(padding=(0, 2))
    for name in ("layer", "best", "ms", "gain", "state"):
        table.add_column(no_wrap=True, justify="right" if name == "ms" else "left", overflow="ellipsis")
    for step in steps:
        ms = "" if step.ms is None else f"{step.ms:.3f} ms"
        gain = "" if step.gain is None else f"{step.gain:.2f} x as fast as the first of {step.tried}"
        state = "" if step.decided else f"measuring {step.measuring}{' more' if step.choice else ''}"
        if step.decided and step.ms is not None and step.gain is None:
            gain = "as a layer like it"
        name, choice = ((text or "").replace("[", r"\[") for text in (step.layer, step.choice))
        table.add_row(name, choice, ms, gain, state, style="dim" if step.decided else None)
    return table
