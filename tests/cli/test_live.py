"""What a terminal shows while layers are tuned."""

import io
import re

from rich.console import Console

from prunus.cli.live import LAST, watching
from prunus.compiler.watch import Tuning


def shown(*steps: object) -> str:
    """The last frame after these steps, without colours."""
    stream = io.StringIO()
    with watching("compile", Console(file=stream, force_terminal=True, width=110)) as show:
        for step in steps:
            show(step)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\x00", stream.getvalue())
    return plain[plain.rindex("compile") :].replace("\x00", "")


def decided(i: int) -> Tuning:
    return Tuning(f"conv{i}", i, 9, 0, 12, f"rows {i}x3", 0.5 + i, 1.25)


def test_a_search_is_a_bar_and_its_last_layers() -> None:
    frame = shown("kernels", *(decided(i) for i in range(7)), Tuning("fc[1]", 7, 9, 4, 3, "rows 1x1", 0.25, 2.0))
    assert "compile: fc[1]" in frame and "7 of 9 layers" in frame
    lines = {line.split()[0]: line for line in frame.splitlines()[1:] if line.strip()}
    assert list(lines) == [*(f"conv{i}" for i in range(7 - LAST, 7)), "fc[1]"]
    assert all(fact in lines["conv6"] for fact in ("rows 6x3", "6.500 ms", "1.25 x as fast as the first of 12"))
    assert all(fact in lines["fc[1]"] for fact in ("rows 1x1", "0.250 ms", "2.00 x", "measuring 4 more"))


def test_a_layer_like_another_is_not_measured() -> None:
    frame = shown(Tuning("conv8", 8, 9, choice="rows 1x1", ms=0.25))
    assert "9 of 9 layers" in frame and "as a layer like it" in frame


def test_other_steps_are_text() -> None:
    assert "compile: conv[3]" in shown("conv[3]")
