"""How one layer is computed: its encoding, tile and loop order, as plain data that can be printed and replayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunus.kernels.isa import Isa
from prunus.sparsity.encoding import Encoding, encode_blocks, encode_rows

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """Heights of row groups and vectors of pixels per tile; see `encode_rows` and `encode_blocks` for the rest.

    `section` is in values for "rows", in rows for "blocks". A task is one section over `tiles_per_task` tiles;
    `pixels_outer` says whether all sections see one stretch of pixels before the next.
    """

    encoding: Literal["rows", "blocks"]
    heights: tuple[int, ...]
    tile: int
    section: int
    tiles_per_task: int
    pixels_outer: bool
    chunk: int = 0
    union: int = 1
    block: tuple[int, int] = (0, 0)
    columns_outer: bool = True

    def __str__(self) -> str:
        parts = [f"{self.encoding} {max(self.heights)}x{self.tile}"]
        parts += [f"block {self.block[0]}x{self.block[1]}"] if self.encoding == "blocks" else []
        parts += [f"chunk {self.chunk}"] if self.chunk else []
        parts += [f"union {self.union}"] if self.union > 1 else []
        parts.append(("pixels" if self.pixels_outer else "weights") + " outer")
        return ", ".join(parts)


def encode(matrix: Floats, groups: int, choice: Choice) -> Encoding:
    """The row groups of a layer's matrix [m, k].

    With `groups` > 1 (grouped convolution) the matrix is [m, k / groups]: rows of group g see only columns
    [g * k / groups, (g + 1) * k / groups).
    """
    if groups == 1:
        return _encode(matrix, choice)
    m, k = matrix.shape
    parts = [_encode(part, choice) for part in np.split(matrix, groups)]
    return join(parts, [i * (m // groups) for i in range(groups)], [i * k for i in range(groups)], choice.section)


def _encode(matrix: Floats, choice: Choice) -> Encoding:
    if choice.encoding == "blocks":
        return encode_blocks(
            matrix, choice.block, choice.heights, choice.section, columns_outer=choice.columns_outer
        )
    return encode_rows(matrix, choice.heights, choice.section, chunk=choice.chunk, union=choice.union)


def join(parts: Sequence[Encoding], rows: Sequence[int], columns: Sequence[int], section_values: int) -> Encoding:
    """Encodings side by side on the diagonal: part i starts at rows[i], columns[i]. Small sections are merged."""
    shape = (sum(part.shape[0] for part in parts), sum(part.shape[1] for part in parts))
    sections, held = [0], 0
    first = np.cumsum([0, *(len(part.heights) for part in parts)])
    for i, part in enumerate(parts):
        held += part.kept
        if held >= section_values or i == len(parts) - 1:
            sections.append(int(first[i + 1]))
            held = 0
    return Encoding(
        shape,
        np.concatenate([part.heights for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate([part.rows + at for part, at in zip(parts, rows, strict=True)]),
        np.concatenate([part.columns + at for part, at in zip(parts, columns, strict=True)]),
        np.concatenate([part.values for part in parts]),
        np.array(sections, np.int64),
    )


@dataclass(frozen=True)
class LayerShape:
    """What candidates depend on beside the zeros. `vectors`: of pixels in the output, padding included; 0 for single
    vectors of inputs (fully connected)."""

    m: int
    k: int
    groups: int
    vectors: int
    threads: int


@dataclass(frozen=True)
class Zeros:
    """What candidates need to know of a matrix's zeros.

    `sharing`: mean number of rows with the same columns. `block`: the largest block in which kept rows x kept columns
    hold no zero, where rows are pruned too; None if there is none.
    """

    density: float
    sharing: float
    block: tuple[int, int] | None
    block_rows: float = 0.0


BLOCKS = ((16, 128), (16, 64), (8, 128), (8, 64), (8, 32), (4, 64), (4, 32), (4, 16))


def examine(matrix: Floats) -> Zeros:
    """Statistics of a matrix's zeros."""
    mask = matrix != 0
    m = len(mask)
    density = float(mask.mean()) if mask.size else 0.0
    packed = np.packbits(mask, axis=1)
    sharing = m / max(len({row.tobytes() for row in packed}), 1)
    if sharing >= 2 or density == 0 or density > 0.6:
        return Zeros(density, sharing, None)
    for high, wide in BLOCKS:
        if m < high:
            continue
        padded = np.zeros((-(-m // high) * high, -(-mask.shape[1] // wide) * wide), bool)
        padded[:m, : mask.shape[1]] = mask
        tiles = padded.reshape(padded.shape[0] // high, high, -1, wide)
        rows, columns = tiles.any(3).sum(1), tiles.any(1).sum(2)
        held = int((rows * columns).sum())
        if held == int(mask.sum()) and (mean := float(rows[rows > 0].mean())) >= 1.5:
            return Zeros(density, sharing, (high, wide), mean)
    return Zeros(density, sharing, None)


L1_VALUES = 6000  # values of a section that stays in a 32 KB first-level cache beside its pixels
L2_VALUES = 60000  # likewise in a 512 KB second-level cache


def candidates(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    """Choices worth measuring, the likeliest first."""
    if not shape.vectors:
        return _gemv_choices(shape, zeros, isa)
    most = dict(isa.tiles)
    found: list[Choice] = []

    def add(heights: tuple[int, ...], tile: int, **more: object) -> None:
        tile = min(tile, shape.vectors)
        usable = tuple(h for h in heights if h in most and most[h] >= tile)
        if 1 not in usable:
            usable = (*usable, 1)
        kept = shape.m * shape.k * zeros.density * (1 if not more.get("union") else 1 / max(zeros.density, 0.1))
        parts = max(1, -(-kept // L2_VALUES), shape.threads * 4 if shape.threads > 1 else 1)
        section = int(more.pop("section", max(kept // parts, 64)))  # type: ignore[call-overload]
        base = {"encoding": "rows", "heights": usable, "tile": tile, **more}
        if kept > L2_VALUES:
            found.append(Choice(section=L1_VALUES, tiles_per_task=16, pixels_outer=False, **base))  # type: ignore[arg-type]
        found.append(Choice(section=section, tiles_per_task=1, pixels_outer=True, **base))  # type: ignore[arg-type]

    if shape.groups > 1 and shape.m // shape.groups == 1:
        for tile in (6, 4, 8):
            add((1,), min(tile, most[1]))
    elif zeros.block:
        rows = max(1, round(zeros.block_rows))
        wide = most.get(rows, 1)
        for tile in dict.fromkeys((wide, max(wide - 1, 1))):
            heights = tuple(h for h in most if most[h] >= tile)
            for section in (64, 16):
                found.append(
                    Choice("blocks", heights, tile, max(section, zeros.block[0]), 1, True, block=zeros.block)
                )
        add((1,), 8)
    elif zeros.sharing >= 2:
        tall = [h for h in (4, 6, 8, 16) if h in most and zeros.sharing >= min(h, 4)]
        for height in tall or [2]:
            heights = tuple(h for h in (height, 4, 3, 2, 1) if h <= height)
            tile = most[height]
            chunk = 0
            if zeros.density > 0.5 and shape.k > 256:
                chunk = 256 if tile <= 2 else 128
            add(heights, tile, chunk=chunk)
            if chunk:
                add(heights, tile)
    else:
        for tile in (8, 6, 4, most[1]):
            add((1,), min(tile, most[1]))
        if zeros.density > 0.3:
            add((4, 2, 1), most[4], union=4)
        elif zeros.density > 0.15:
            add((2, 1), most[2], union=2)
    return list(dict.fromkeys(found))


def _gemv_choices(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    section = max(256, int(shape.m * shape.k * zeros.density) // max(8, 4 * shape.threads))
    heights = isa.gemv_heights
    found = []
    if zeros.sharing >= min(isa.lanes, 8) / 2:
        found.append(Choice("rows", heights, 1, section, 1, False))
    if zeros.density > 0.25 and zeros.sharing < isa.lanes:
        found.append(Choice("rows", heights, 1, section, 1, False, union=isa.lanes))
    found.append(Choice("rows", (1,), 1, section, 1, False))
    return found
