"""Which block: the smallest whose layer is about as fast as with the best one.

At one rate latency falls with the size of blocks, then stays; accuracy falls with it all along. So the size is chosen
by measuring alone, on random masks, before any training, and training decides the rest. Source: Niu et al., "GRIM",
TPAMI 44 (2022), arXiv:2108.11033, block-size optimisation; its tolerance isn't known, and ours is an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

from prunus.compiler.explore import ExploreRow
from prunus.errors import SchemeError
from prunus.sparsity.scheme import parse

ROWS = (2, 4, 8, 16, 32)
COLUMNS = {"bcr": (8, 16, 32, 64, 128), "block-row": (8, 16, 32, 64, 128), "block-column": (8, 16, 32, 64, 128)}
CHANNELS = (1, 2, 4, 8, 16)


@final
@dataclass(frozen=True)
class BlockChoice:
    """The block of a layer: the chosen scheme and its time, those of the fastest one, and the layer dense; in ms.

    times: of all candidates, by scheme, in the order of their size. scheme None: no candidate was measured, or none is
    faster than dense.
    """

    layer: str
    shape: tuple[int, ...]
    count: int
    scheme: str | None
    ms: float | None
    best: str | None
    best_ms: float | None
    dense_ms: float
    times: dict[str, float]


def candidates(family: str) -> list[str]:
    """Schemes of a family in all block sizes that are tried, the smallest first.

    Raises SchemeError: the family has no blocks.
    """
    if family != "punched" and family not in COLUMNS:
        raise SchemeError(f"{family!r}: expected one of {', '.join((*COLUMNS, 'punched'))}, whose blocks have a size")
    pairs = product(ROWS, COLUMNS.get(family, CHANNELS))
    return [f"{family}:{r}x{c}" for r, c in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair))]


def choose_blocks(rows: Sequence[ExploreRow], tolerance: float) -> list[BlockChoice]:
    """Of each layer the smallest block within `tolerance` (0.1: a tenth) of its best time; of equals, the fewer rows.

    rows: of `explore`, with the schemes of `candidates` and one sparsity.
    """
    layers: dict[str, list[ExploreRow]] = {}
    for row in rows:
        layers.setdefault(row.layer, []).append(row)
    return [_choose(found, tolerance) for found in layers.values()]


def _choose(rows: Sequence[ExploreRow], tolerance: float) -> BlockChoice:
    first = rows[0]
    times = {row.scheme: row.ms for row in sorted(rows, key=_size) if row.ms is not None}
    about = (first.layer, first.shape, first.count)
    if not times:
        return BlockChoice(*about, None, None, None, None, first.dense_ms, times)
    best = min(times, key=lambda scheme: times[scheme])
    if times[best] >= first.dense_ms:
        return BlockChoice(*about, None, None, best, times[best], first.dense_ms, times)
    limit = min(times[best] * (1 + tolerance), first.dense_ms)
    chosen = next(scheme for scheme, ms in times.items() if ms <= limit)
    return BlockChoice(*about, chosen, times[chosen], best, times[best], first.dense_ms, times)


def _size(row: ExploreRow) -> tuple[int, tuple[int, ...]]:
    block = parse(row.scheme).block
    return block[0] * block[1], block
