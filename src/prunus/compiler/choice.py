"""How one layer is computed: its encoding, tile and loop order, as plain data that can be printed and replayed."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunus.kernels.isa import LANES_TILES, Isa
from prunus.sparsity.spans import MOST_COLUMNS

Values = NDArray[Any]  # float32, or int32 words of packed channels


@dataclass(frozen=True)
class Choice:
    """Heights of row groups and vectors of pixels per tile; see `encode_rows` and `encode_blocks` for the rest.

    `section` is in values for "rows", in rows for "blocks". A task is one section over `tiles_per_task` tiles;
    `pixels_outer` says whether all sections see one stretch of pixels before the next. For "winograd"
    vectors are of tiles, `section` is in rows, `tiles_per_task` in vectors (a strip), and the input is transformed
    by each task for all sections (`pixels_outer`) or before all tasks. "channels" is one filter per packed channel,
    "depthwise" one per plane of float32, with planes as the tiles of a task. "spans" is for single vectors, with
    `section` in values; see `sparsity.spans`. "lanes" is for maps of few pixels: rows as lanes, `tiles_per_task` lines
    of `tile` pixels side by side.
    """

    encoding: Literal["rows", "blocks", "winograd", "channels", "depthwise", "spans", "lanes"]
    heights: tuple[int, ...]
    tile: int
    section: int
    tiles_per_task: int
    pixels_outer: bool
    chunk: int = 0
    union: int = 1
    block: tuple[int, int] = (0, 0)
    columns_outer: bool = True
    apart: int = 1

    def __str__(self) -> str:
        if self.encoding == "channels":
            return "channel by channel"
        if self.encoding == "spans":
            return f"spans, section {self.section}"
        if self.encoding == "depthwise":
            return f"depthwise, {self.tiles_per_task} planes a task"
        if self.encoding == "lanes":
            return f"rows as lanes {max(self.heights)} over {self.tiles_per_task}x{self.tile}, section {self.section}"
        parts = [f"{self.encoding} {max(self.heights)}x{self.tile}"]
        parts += [f"block {self.block[0]}x{self.block[1]}"] if self.encoding == "blocks" else []
        parts += [f"chunk {self.chunk}"] if self.chunk else []
        parts += [f"union {self.union}"] if self.union > 1 else []
        parts += [f"{self.apart} apart"] if self.apart > 1 else []
        parts += [f"strip {self.tiles_per_task}"] if self.encoding == "winograd" else []
        parts += ["input first"] if self.encoding == "winograd" and not self.pixels_outer else []
        parts.append(f"section {self.section}" if self.section > 1 else "group by group")
        return ", ".join(parts)


@dataclass(frozen=True)
class LayerShape:
    """What candidates depend on beside the zeros. `vectors`: of pixels in the output, padding included; 0 for single
    vectors of inputs (fully connected). `tile_vectors`: of tiles of pixels, where `sparsity.winograd` has a form, else
    0; `tile_positions` and `tile_planes`: of a tile of transformed input. `pack`: channels per word; `lone`: packed,
    one filter per channel. `window`: float32, one or more filters per channel, of a size and stride that have a kernel.
    `flat`: fully connected, float32. `again`: its weights are read time after time, from a near cache as far as that
    holds them. `line`: pixels of a line of a small float32 map, else 0. `value_bytes`: of a weight as it is held, of a
    `flat` layer."""

    m: int
    k: int
    groups: int
    vectors: int
    threads: int
    tile_vectors: int = 0
    pack: int = 1
    lone: bool = False
    window: bool = False
    flat: bool = False
    line: int = 0
    again: bool = False
    value_bytes: int = 4
    tile_positions: int = 0
    tile_planes: int = 0


@dataclass(frozen=True)
class Zeros:
    """What candidates need to know of a matrix's zeros.

    `sharing`: mean number of rows with the same columns, of those that keep any. `block`: the largest block in which
    kept rows x kept columns hold no zero, where rows are pruned too; None if there is none.
    """

    density: float
    sharing: float
    block: tuple[int, int] | None
    block_rows: float = 0.0


MANY = 0.6  # of a matrix's values: above, zeros are not worth leaving out
BLOCKS = ((16, 128), (16, 64), (8, 128), (8, 64), (8, 32), (4, 64), (4, 32), (4, 16))


def examine(matrix: Values) -> Zeros:
    """Statistics of a matrix's zeros."""
    mask = matrix != 0
    m = len(mask)
    density = float(mask.mean()) if mask.size else 0.0
    packed = np.packbits(mask, axis=1)
    kept = packed[packed.any(1)]
    sharing = max(len(kept), 1) / max(len({row.tobytes() for row in kept}), 1)
    if sharing >= SHARED_WELL or density == 0 or density > MANY:
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


SURE_LINE = 4  # pixels of a line, up to which whole vectors of rows are better lanes
FEW_VECTORS = 2  # of pixels, where half a vector of rows may be better
SHARED_WELL = 4  # rows with the same columns, on average, from which on blocks aren't worth trying
CHANNELS = Choice("channels", (1,), 1, 1, 1, False)
SECTION_VALUES = 60000  # of weights that stay in a second-level cache of 512 KB while pixels go by
L1_VECTORS = 512  # of 32 bytes: half of a first-level cache of 32 KB
STRIP_VALUES = (50000, 250000, 1000000)  # of transformed input; a second-level cache of 512 KB holds 128 K
SUM_VALUES = 60000  # of the products that wait to be transformed back
LEAST_KEPT = 64  # columns per group and chunk, to pay for loading and storing the sums
FEW_KEPT = (13, 26, 38)  # likewise, of single rows, whose pixels must be near: each is read for one product
WIDE = 8  # vectors of pixels
FEW_TASKS, MANY_TASKS = 2, 8  # per thread: few where a task would be over before the next is handed out
TASK_WORK = 60000  # of weights times vectors of pixels in a task, some 10 microseconds
PLANE_ELEMENTS = 16384  # of depthwise output: a few microseconds
BLOCK_ROWS = (256, 64, 512, 16)  # of a section that goes block by block
AGAIN_SECTIONS = 16  # per thread, of weights that are read forwards and backwards in turn
LEAST_SPANS = 16384  # values per section of spans: lanes of short ones are filled with zeros
MOST_TILES = 64  # per task, where several sections share them


def candidates(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    """Choices worth measuring, the likeliest first, each once."""
    found = _candidates(shape, zeros, isa)
    if shape.window:
        found.insert(0, _depthwise_choice(shape, isa))
    if shape.tile_vectors and zeros.density > MANY:
        found += _winograd_choices(shape, isa)
    if shape.line and zeros.density > 0 and zeros.sharing >= _least_lanes(shape, isa):
        lanes = _lanes_choices(shape, zeros, isa)
        likely = shape.line <= SURE_LINE and zeros.sharing >= isa.lanes
        found = [*lanes, *found] if likely else [*found, *lanes]
    return list(dict.fromkeys(found))


def _least_lanes(shape: LayerShape, isa: Isa) -> int:
    """Rows with the same columns, from which on they may be better lanes than pixels."""
    return isa.lanes // 2 if isa.lanes >= 8 and shape.vectors <= FEW_VECTORS else isa.lanes


def _candidates(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    if shape.lone:
        return [CHANNELS]
    if not shape.vectors:
        return _gemv_choices(shape, zeros, isa)
    if shape.pack > 1:
        return _packed_choices(shape, zeros, isa)
    most = dict(isa.tiles)
    if shape.groups > 1 and shape.m == shape.groups:
        return [_rows(shape, zeros, isa, (1,), tile) for tile in (6, 4, 8)]
    found = _block_choices(shape, zeros, zeros.block, isa) if zeros.block else []
    if zeros.block and zeros.sharing < 2:
        return [*found, *_orders(shape, zeros, isa, (1,), 8)]
    if zeros.sharing >= 2:
        for height in _fitting_heights(zeros.sharing, most):
            heights = tuple(dict.fromkeys(h for h in (height, 4, 3, 2, 1) if h <= height))
            found += _orders(shape, zeros, isa, heights, most[height])
        return found
    found = _single_rows(shape, zeros, isa)
    if zeros.density > 0.3:
        found.append(_rows(shape, zeros, isa, (4, 2, 1), most[4], union=4))
    elif zeros.density > 0.15:
        found.append(_rows(shape, zeros, isa, (2, 1), most[2], union=2))
    return found


def _fitting_heights(sharing: float, most: dict[int, int]) -> list[int]:
    """Heights that classes of rows alike fill, with at least two vectors of pixels; the four that do most per load."""
    fits = [h for h in most if h > 1 and most[h] > 1 and (sharing % h == 0 or sharing >= 4 * h)]
    fits.sort(key=lambda h: -h * most[h] / (h + most[h]))
    # fewer rows over more pixels take several groups per class, and write memory in longer runs
    narrow = [h for h in most if 1 < h <= sharing and most[h] >= WIDE and h not in fits[:4]]
    return [*fits[:4], *narrow[-1:]] or [2]


def _orders(shape: LayerShape, zeros: Zeros, isa: Isa, heights: tuple[int, ...], tile: int) -> list[Choice]:
    """Whole rows, in three orders: many rows over one tile after another; one group over all pixels before the next, so
    that memory is written in few long streams; and, where columns are many, in chunks of columns."""
    found = [_rows(shape, zeros, isa, heights, tile), _rows(shape, zeros, isa, heights, tile, section=1)]
    chunk = max(L1_VECTORS // tile, round(LEAST_KEPT / max(zeros.density, 1e-3)))
    if chunk * 1.5 < shape.k / shape.groups:
        found.append(_rows(shape, zeros, isa, heights, tile, chunk=chunk))
    return found


def _single_rows(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    """Rows that share no columns, one by one or some side by side, which takes shorter chunks and narrower tiles."""
    widest = dict(isa.tiles)[1]
    found = [_rows(shape, zeros, isa, (1,), tile) for tile in dict.fromkeys((widest, 8, 6))]
    found.append(_rows(shape, zeros, isa, (1,), 8, section=1))
    columns = shape.k // shape.groups
    chunks = [c for kept in FEW_KEPT if (c := round(kept / max(zeros.density, 1e-3))) * 1.4 < columns]
    found += [_rows(shape, zeros, isa, (1,), tile, chunk=chunk) for tile in (widest, 8) for chunk in chunks[-1:]]
    for apart, tile in isa.apart:
        for chunk in (0, *chunks):
            found.append(replace(_rows(shape, zeros, isa, (1,), tile, chunk=chunk), apart=apart))
    return found


def _rows(
    shape: LayerShape, zeros: Zeros, isa: Isa, heights: tuple[int, ...], tile: int, chunk: int = 0, union: int = 1,
    section: int = SECTION_VALUES,
) -> Choice:  # fmt: skip
    """Whole rows at these heights: sections that stay in cache, and tasks enough for all threads."""
    most = dict(isa.tiles_of(shape.pack))
    tile = min(tile, shape.vectors, max(most.values()))
    heights = tuple(h for h in heights if most[h] >= tile)
    held = int(shape.m * shape.k / shape.groups * min(zeros.density * union, 1.0))
    held = held * chunk // shape.k if 0 < chunk < shape.k else held
    values, per_task = _work(shape, held, section, -(-shape.vectors // tile))
    return Choice("rows", heights, tile, values, per_task, False, chunk, union)


def _work(shape: LayerShape, held: int, section: int, tiles: int) -> tuple[int, int]:
    """Values per section and tiles per task, so that there are some tasks for every thread."""
    sections = max(1, min(-(-held // section), shape.m))
    per_thread = max(FEW_TASKS, min(held * shape.vectors // (TASK_WORK * shape.threads), MANY_TASKS))
    tasks = per_thread * shape.threads
    most = tiles if sections >= tasks else MOST_TILES
    if shape.threads == 1:
        return section, most
    per_task = max(1, min(most, tiles * sections // tasks))
    if -(-tiles // per_task) * sections < tasks:
        sections = -(-tasks // -(-tiles // per_task))
    return min(section, max(64, -(-held // sections))), per_task


def _block_choices(shape: LayerShape, zeros: Zeros, block: tuple[int, int], isa: Isa) -> list[Choice]:
    """Block by block, for rows pruned per block: sections of many strips, which read their input once for all of them
    while it and the sums stay in the first-level cache, or not far behind; and strip by strip."""
    most = dict(isa.tiles)
    wide = most.get(max(1, round(zeros.block_rows)), 1)
    found = []
    for tile in dict.fromkeys((wide, max(wide - 1, 1))):
        tile = min(tile, shape.vectors)
        heights = tuple(h for h in most if most[h] >= tile)
        held = int(shape.m * shape.k * zeros.density)
        for rows in BLOCK_ROWS if tile == wide else BLOCK_ROWS[:2]:
            values, per_task = _work(shape, held, max(1, held * rows // shape.m), -(-shape.vectors // tile))
            rows = max(block[0], min(rows, round(shape.m * values / max(held, 1))))
            found.append(Choice("blocks", heights, tile, rows, per_task, False, block=block))
    return list(dict.fromkeys(found))


def _lanes_choices(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    """Rows as lanes: lines in the widest tiles that go into them without rest, else of four, and as many lines at a
    time as there are kernels for; four of four only where those may be the whole map, for they leave out padding but
    read weights for fewer rows at a time."""
    tile = next((p for p in (7, 4, 3, 2) if shape.line % p == 0), min(4, shape.line))
    fits = [high for high, wide in LANES_TILES if wide == tile and len(isa.lanes_heights(high * wide)) > 1]
    fits = [high for high in fits if high < 4 or shape.line == 4] if shape.line % tile == 0 else [1]
    held = int(shape.m * shape.k * zeros.density)
    section = min(SECTION_VALUES, max(256, held if shape.threads == 1 else held // (4 * shape.threads)))
    most = sorted(fits, reverse=True)[: 2 if shape.line == 4 else 1]
    return [Choice("lanes", isa.lanes_heights(lines * tile), tile, section, lines, False) for lines in most]


def _depthwise_choice(shape: LayerShape, isa: Isa) -> Choice:
    """As many planes per task as are worth handing out, and tasks for every thread."""
    worth = -(-PLANE_ELEMENTS // (shape.vectors * isa.lanes))
    fair = shape.m // (MANY_TASKS * shape.threads)
    return Choice("depthwise", (1,), 1, 1, shape.m if shape.threads == 1 else max(1, min(fair, worth)), False)


def _packed_choices(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    """Rows in whole words of the output: neighbours share columns, and what one of them keeps all do."""
    found = []
    tiles = dict(isa.tiles_of(shape.pack))
    for height in tiles:
        heights = tuple(h for h in sorted(tiles, reverse=True) if h <= height and height % h == 0)
        for section in (SECTION_VALUES, 1):
            found.append(_rows(shape, zeros, isa, heights, tiles[height], union=height, section=section))
    return found


def _winograd_choices(shape: LayerShape, isa: Isa) -> list[Choice]:
    """Strips by the task that go on while transformed input stays in cache, or the input transformed beforehand."""
    height, tile = max(
        ((h, min(v, shape.tile_vectors)) for h, v in isa.tiles), key=lambda t: (t[0] * t[1] / (t[0] + t[1]), t[0])
    )
    heights = tuple(h for h, v in sorted(isa.tiles, reverse=True) if h <= height and v >= tile)
    sections = max(1, min(2 * shape.threads if shape.threads > 1 else 1, shape.m // height))
    found, size = [], shape.tile_positions * shape.tile_planes
    for kept in STRIP_VALUES:
        strip = min(max(tile, kept // (size * isa.lanes) // tile * tile), shape.tile_vectors)
        rows = SUM_VALUES // (shape.tile_positions * isa.lanes * strip)
        rows = max(height, min(rows, -(-shape.m // sections)) // height * height)
        whole = -(-shape.tile_vectors // strip)
        if whole >= 2 * shape.threads or shape.threads == 1:
            found.append(Choice("winograd", heights, tile, rows, strip, True))
        if shape.threads > 1:
            found.append(Choice("winograd", heights, tile, rows, strip, False))
    return found


def _gemv_choices(shape: LayerShape, zeros: Zeros, isa: Isa) -> list[Choice]:
    held = int(shape.m * shape.k * zeros.density)
    section = max(256, held // max(8, 4 * shape.threads))
    heights, found = isa.gemv_heights(shape.pack if shape.value_bytes == 4 else 0), []
    least = heights[-2]  # rows that the smallest kernel with more than one takes
    spans = []
    if shape.flat and shape.k <= MOST_COLUMNS and zeros.density <= MANY:  # the longer a section, the fuller its lanes
        whole = held + 1 if shape.threads == 1 else max(LEAST_SPANS, held // (2 * shape.threads))
        whole = max(LEAST_SPANS, held // (AGAIN_SECTIONS * shape.threads)) if shape.again else whole
        spans.append(Choice("spans", (1,), 1, whole, 1, False))
    if zeros.sharing < least:
        found += spans
    if shape.pack > 1 and isa.lanes / 2 <= zeros.sharing < isa.lanes:  # two classes side by side fill a vector
        found.append(Choice("rows", heights, 1, section, 1, False, union=isa.lanes))
    if zeros.sharing >= least / 2:
        found.append(Choice("rows", heights, 1, section, 1, False))
    if zeros.sharing >= least:
        found += spans
    if zeros.sharing >= isa.lanes:
        return found
    if zeros.density > 0.25:
        found.append(Choice("rows", heights, 1, section, 1, False, union=isa.lanes))
    if zeros.sharing < least:
        found.append(Choice("rows", (1,), 1, section, 1, False))
    return found
