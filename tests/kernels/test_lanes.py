"""Row groups over small maps with the rows as lanes, exactly: each tile, lines and pixels left over, rows left over,
zeros, residuals, images and threads. What lies around would make sums NaN."""

import itertools

import numpy as np
import pytest

from prunus.kernels.isa import LANES_TILES
from prunus.runtime.lower.groups import call_table, column_runs, group_places, group_table
from prunus.runtime.records import ACTIVATIONS, ARENA, CONSTANTS, LANES_WHOLE, NOWHERE, PORTS, TABLES, address, record
from prunus.sparsity.encoding import FILLED, Encoding, decode, encode_rows
from tests.kernels.runners import Runner

CHANNELS, MARGIN = 3, 2  # a column per channel and one of two neighbours: k = 6


def columns_of(plane: int, step: int = 1) -> np.ndarray:
    return (np.arange(CHANNELS)[:, None] * plane + step * np.arange(2)).ravel().astype(np.int32)


def computed(
    runner: Runner, encoding: Encoding, x: np.ndarray, tile: tuple[int, int], *, gap: int = 1, threads: int = 1,
    bias: np.ndarray | None = None, residual: np.ndarray | None = None, relu: bool = False,
    cuts: np.ndarray | None = None, in_place: bool = False, step: int = 1,
) -> np.ndarray:  # fmt: skip
    """[images, rows, lines, width] of x [images, CHANNELS, lines, width + 1]; `in_place`: added to ones. Planes end
    with the last pixel: behind it is the next one's first, or, behind the last plane, what must not change."""
    images, _, lines, _ = x.shape
    width, m, pitch = x.shape[3] - 1, encoding.shape[0], step * x.shape[3] + 2
    arena = np.full((images, CHANNELS, step * lines + MARGIN, pitch), np.nan, np.float32)
    arena[:, :, : step * lines : step, : step * (width + 1) : step] = x
    plane = arena[0, 0].size
    out_pitch = width + gap
    out_plane = (lines - 1) * out_pitch + width
    out = np.full(images * m * out_plane + gap, 777, np.float32)
    tables, starts = [], []
    _, places = group_places(encoding)
    cuts = np.zeros(encoding.shape[1], np.int64) if cuts is None else cuts
    runs = column_runs(encoding, columns_of(plane, step), cuts)
    for array in (runs.offsets, group_table(encoding, runs)[0], *call_table(encoding, places)):
        starts.append(address(TABLES, sum(t.size for t in tables)))
        tables.append(np.append(array.ravel().astype(np.int32), np.zeros(-array.size % 16, np.int32)))
    constants = [encoding.values, *([] if bias is None else [bias])]
    ports = [out]
    if residual is not None:
        ports.append(np.full(out.size, np.nan, np.float32))
        lying = planes(ports[1], (images, m, lines, width), out_pitch)
        lying[...] = residual
    if in_place:
        planes(out, (images, m, lines, width), out_pitch)[...] = 1
    lies = address(PORTS + 1, 0) if residual is not None else address(PORTS, 0) if in_place else NOWHERE
    plan = record(
        "lanes", images=images, x=address(ARENA, 0), x_batch=CHANNELS * plane, x_pitch=step * pitch, step=step,
        out=address(PORTS, 0), out_batch=m * out_plane, out_pitch=out_pitch, plane=out_plane,
        residual=lies, residual_batch=m * out_plane,
        residual_plane=out_plane, weights=address(CONSTANTS, 0), offsets=starts[0], groups=starts[1], calls=starts[2],
        parts=starts[3], sections=starts[4], n_sections=len(encoding.sections) - 1,
        bias=NOWHERE if bias is None else address(CONSTANTS, encoding.values.size), slope=NOWHERE,
        activation=ACTIVATIONS["relu"] if relu else 0, lines=lines, width=width, tile_lines=tile[0], tile=tile[1],
    )  # fmt: skip
    space = np.concatenate([*constants, np.full(64, np.nan, np.float32)])
    runner.run(np.array(plan, np.int64), np.concatenate(tables), space, arena.ravel(), ports, 16, threads)
    assert (out[images * m * out_plane :] == 777).all(), "nothing is written behind the last plane"
    if lines > 1:
        behind = planes(out[width:], (images, m, lines - 1, gap), out_pitch, out_plane)
        assert (behind == 0).all(), "the padding between lines is cleared"
    return planes(out, (images, m, lines, width), out_pitch)


def planes(a: np.ndarray, shape: tuple[int, int, int, int], pitch: int, plane: int | None = None) -> np.ndarray:
    """A view of planes of lines that lie `pitch` apart, one plane behind the other."""
    plane = (shape[2] - 1) * pitch + shape[3] if plane is None else plane
    return np.lib.stride_tricks.as_strided(a, shape, [4 * n for n in (shape[1] * plane, plane, pitch, 1)])


def expected(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    windows = np.stack([x[..., :-1], x[..., 1:]], 2).reshape(len(x), -1, *x.shape[2:-1], x.shape[3] - 1)
    return np.einsum("mk,nkhw->nmhw", matrix, windows)


@pytest.mark.parametrize("tile", LANES_TILES, ids=lambda tile: f"{tile[0]}x{tile[1]}")
def test_exactly(runner: Runner, tile: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    lanes, heights = runner.isa.lanes, runner.isa.lanes_heights(tile[0] * tile[1])
    for m, lines, width, gap in (
        (7 * lanes + 3, tile[0], tile[1], 1), (lanes, tile[0] + 1, tile[1] * 2, 0),
        (2 * lanes + 1, 2 * tile[0], tile[1], 3),
    ):  # fmt: skip
        matrix = rng.integers(-3, 4, (m, 2 * CHANNELS)).astype(np.float32)
        matrix[lanes // 2 : lanes, 1:4] = 0  # rows apart that share columns
        matrix[-1] = 0
        for images, section, residual in ((1, 10**9, False), (2, 4 * lanes, True)):
            x = rng.integers(-3, 4, (images, CHANNELS, lines, width + 1)).astype(np.float32)
            bias = rng.integers(-3, 4, m).astype(np.float32)
            other = rng.integers(-3, 4, (images, m, lines, width)).astype(np.float32) if residual else None
            got = computed(
                runner, encode_rows(matrix, heights, section), x, tile, gap=gap, threads=images, bias=bias,
                residual=other, relu=residual,
            )  # fmt: skip
            wanted = expected(matrix, x) + bias[:, None, None]
            wanted = np.maximum(wanted + other, 0) if other is not None else wanted
            np.testing.assert_array_equal(got, wanted, err_msg=f"{m} rows, {lines} x {width}")


@pytest.mark.parametrize("width", range(1, 16))
def test_lines_of_any_width(runner: Runner, width: int) -> None:
    """Left over pixels go to narrower kernels."""
    rng = np.random.default_rng(width)
    matrix = rng.integers(-3, 4, (runner.isa.lanes + 1, 2 * CHANNELS)).astype(np.float32)
    x = rng.integers(-3, 4, (1, CHANNELS, 2, width + 1)).astype(np.float32)
    for pixels in (7, 4, 3):
        got = computed(runner, encode_rows(matrix, runner.isa.lanes_heights(pixels), 99), x, (1, pixels))
        np.testing.assert_array_equal(got, expected(matrix, x))


@pytest.mark.parametrize("tile", LANES_WHOLE, ids=lambda tile: f"{tile[0]}x{tile[1]}")
def test_what_would_only_meet_padding_is_left_out(runner: Runner, tile: tuple[int, int]) -> None:
    """Cut pixels of a column are NaN: no group of more than a row reads them."""
    rng = np.random.default_rng(2)
    lines, width = tile
    for cut, height in itertools.product(range(9), runner.isa.lanes_heights(lines * width)[:-1]):
        cuts = np.repeat([cut, (cut + 4) % 9, cut], 2)
        matrix = rng.integers(1, 4, (3 * height, 2 * CHANNELS)).astype(np.float32)
        matrix[:, 1::2] = 0  # so that a column is alone with its channel
        matrix[height:, 2] = 0  # one run, where those that share columns have three
        x = rng.integers(-3, 4, (1, CHANNELS, lines, width + 1)).astype(np.float32)
        for channel, code in enumerate(cuts[::2]):
            x[0, channel, [[], [0], [lines - 1]][code // 3]] = np.nan
            x[0, channel, :, [[], [0], [width - 1]][code % 3]] = np.nan
        got = computed(runner, encode_rows(matrix, (height,), 1), x, tile, cuts=cuts)
        np.testing.assert_array_equal(got, expected(matrix, np.nan_to_num(x)), err_msg=f"height {height}, cut {cut}")


@pytest.mark.parametrize("tile", LANES_WHOLE, ids=lambda tile: f"{tile[0]}x{tile[1]}")
def test_every_other_pixel(runner: Runner, tile: tuple[int, int]) -> None:
    """What lies between is NaN."""
    rng = np.random.default_rng(4)
    for rows in (*runner.isa.lanes_heights(tile[0] * tile[1]), runner.isa.lanes + 2):
        matrix = rng.integers(-3, 4, (rows, 2 * CHANNELS)).astype(np.float32)
        x = rng.integers(-3, 4, (2, CHANNELS, tile[0], tile[1] + 1)).astype(np.float32)
        encoding = encode_rows(matrix, runner.isa.lanes_heights(tile[0] * tile[1]), 99)
        got = computed(runner, encoding, x, tile, step=2)
        np.testing.assert_array_equal(got, expected(matrix, x), err_msg=f"{rows} rows")


def test_left_over_rows_fill_groups(runner: Runner) -> None:
    """A row that comes again is written once: its residual may lie where it is written."""
    rng = np.random.default_rng(3)
    lanes, heights = runner.isa.lanes, runner.isa.lanes_heights(9)
    for left in range(1, lanes):
        matrix = rng.integers(1, 4, (lanes + left, 2 * CHANNELS)).astype(np.float32)
        encoding = encode_rows(matrix, heights, 10**9, fill=lanes)
        assert (encoding.heights > 1).all() or left < FILLED
        np.testing.assert_array_equal(decode(encoding), matrix)
        x = rng.integers(-3, 4, (1, CHANNELS, 3, 4)).astype(np.float32)
        got = computed(runner, encoding, x, (3, 3), in_place=True, bias=np.full(len(matrix), 5, np.float32))
        np.testing.assert_array_equal(got, 6 + expected(matrix, x))


def test_a_vector_of_nothing_but_a_row_that_comes_again(runner: Runner) -> None:
    """As a schedule may ask for it: the second vector of a group has no row of its own."""
    rng = np.random.default_rng(5)
    height = 2 * runner.isa.lanes
    matrix = rng.integers(1, 4, (height + FILLED, 2 * CHANNELS)).astype(np.float32)
    encoding = encode_rows(matrix, (height, 1), 10**9, fill=height)
    assert encoding.heights.tolist() == [height, height]
    x = rng.integers(-3, 4, (1, CHANNELS, 2, 3)).astype(np.float32)
    got = computed(runner, encoding, x, (2, 2), in_place=True, bias=np.full(len(matrix), 5, np.float32))
    np.testing.assert_array_equal(got, 6 + expected(matrix, x))


def test_runs_of_columns() -> None:
    matrix = np.ones((5, 4), np.float32)
    matrix[1:3, :2] = 0
    matrix[3] = 0
    encoding = encode_rows(matrix, (2, 1), 99)  # rows 0 and 4, 1 and 2, 3
    runs = column_runs(encoding, np.array([10, 20, 30, 40]), np.array([5, 5, 0, 5]))
    assert runs.counts.tolist() == [3, 2, 0]
    assert runs.starts.tolist()[:2] == [0, 10]
    assert runs.offsets.tolist() == [5, 2, 10, 20, 0, 1, 30, 5, 1, 40, 0, 1, 30, 5, 1, 40]
