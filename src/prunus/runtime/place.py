"""Memory: buffers with lifetimes are put into one arena so that those alive together don't overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.runtime.layout import LINE, up


@dataclass(frozen=True)
class Buffer:
    """`size` elements, needed from step `born` to step `dies`, both included."""

    name: str
    size: int
    born: int
    dies: int


def place(buffers: Sequence[Buffer]) -> tuple[dict[str, int], int]:
    """Offset of each buffer, on cache lines, and the size of the arena.

    Largest first, each at the lowest place where it fits beside those already placed that live at the same time.
    """
    placed: list[tuple[int, int, Buffer]] = []
    offsets: dict[str, int] = {}
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.born, b.name)):
        size, offset = up(max(buffer.size, 1), LINE), 0
        rivals = [(low, high) for low, high, other in placed if other.born <= buffer.dies and buffer.born <= other.dies]
        for low, high in sorted(rivals):
            if offset + size <= low:
                break
            offset = max(offset, high)
        placed.append((offset, offset + size, buffer))
        offsets[buffer.name] = offset
    return offsets, max((high for _, high, _ in placed), default=0)
