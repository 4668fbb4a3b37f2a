"""Choices that differ a little from a good one: where a full search goes on after the candidates of a fast one."""

from collections.abc import Callable
from dataclasses import replace

from prunus.compiler.choice import Choice, LayerShape
from prunus.compiler.schedule import refusal
from prunus.kernels.isa import Isa

Change = Callable[[Choice], list[Choice]]


def neighbours(choice: Choice, shape: LayerShape, isa: Isa) -> list[Choice]:
    """Choices one step away from `choice` that the layer and `isa` can take, each once and without `choice` itself.

    A step is another tile with the heights that have it, the next taller or lower group, or half or twice as much of a
    section, a chunk, or a task.
    """
    if not shape.vectors or shape.pack > 1 or choice.encoding not in ("rows", "blocks"):
        return []
    found = [*_tiles(choice, shape, isa), *_heights(choice, isa), *_sizes(choice, shape)]
    fitting = dict.fromkeys(other for other in found if refusal(other, shape, isa) is None)
    return [other for other in fitting if other != choice]


def _tiles(choice: Choice, shape: LayerShape, isa: Isa) -> list[Choice]:
    most = dict(isa.tiles)
    tiles = [tile for tile in (choice.tile - 1, choice.tile + 1) if 1 <= tile <= shape.vectors]
    return [replace(choice, tile=tile, heights=tuple(h for h in choice.heights if most[h] >= tile)) for tile in tiles]


def _heights(choice: Choice, isa: Isa) -> list[Choice]:
    """The next taller and the next lower group, each with as wide a tile as it has: rows that share columns only."""
    if choice.encoding != "rows" or choice.union > 1 or max(choice.heights) == 1:
        return []
    ladder = sorted(height for height, _ in isa.tiles)
    at, most = ladder.index(max(choice.heights)), dict(isa.tiles)
    found = []
    for height in ladder[max(at - 1, 0) : at + 2]:
        tile = min(most[height], choice.tile if height < max(choice.heights) else most[height])
        heights = tuple(h for h in reversed(ladder) if h <= height and most[h] >= tile)
        found.append(replace(choice, heights=heights, tile=tile))
    return found


def _sizes(choice: Choice, shape: LayerShape) -> list[Choice]:
    found = [replace(choice, section=choice.section * 2)]
    if choice.section > 1:
        found.append(replace(choice, section=choice.section // 2))
    if choice.encoding == "rows" and shape.groups == 1:
        chunks = [choice.chunk // 2, choice.chunk * 2] if choice.chunk else [shape.k // 2, shape.k // 4]
        found += [replace(choice, chunk=chunk) for chunk in chunks if 16 <= chunk < shape.k]
    if choice.chunk:
        found.append(replace(choice, chunk=0))
    if choice.encoding == "blocks":
        found.append(replace(choice, columns_outer=not choice.columns_outer))
    if shape.threads > 1:
        found += [
            replace(choice, tiles_per_task=tiles)
            for tiles in (choice.tiles_per_task // 2, choice.tiles_per_task * 2)
            if tiles
        ]
    return found
