"""The row-group micro-kernels, exactly: every ISA x height x number of vectors, on small integers in float32."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.kernels.isa import Isa
from prunus.runtime.lower.groups import call_table, group_table
from prunus.runtime.records import ACTIVATIONS, ARENA, CONSTANTS, NOWHERE, TABLES, address, float_bits, record
from prunus.sparsity.encoding import (
    APART,
    FINAL,
    LOAD,
    MIXED,
    MOST_MIXED,
    Encoding,
    column_starts,
    encode_blocks,
    encode_rows,
    read_order,
)
from tests.kernels.runners import Runner

GUARD = 777.0
K = 11  # columns of the test matrices


def tiles(isa: Isa) -> list[tuple[int, int]]:
    return [(rows, vectors) for rows, most in isa.tiles for vectors in range(1, most + 1)]


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float32)


def encoding_of(
    matrix: np.ndarray, height: int, flags: tuple[int, ...], counts: list[int], parts: list[int] | None = None
) -> Encoding:
    """Rows in groups of one height; each group's columns in `len(flags)` stretches of `counts` columns."""
    m = len(matrix)
    assert m % height == 0
    heights, n, f, rows, columns, values = [], [], [], [], [], []
    for i, flag in enumerate(flags):
        low, high = sum(counts[:i]), sum(counts[: i + 1])
        for first in range(0, m, height):
            heights.append(height), n.append(high - low), f.append(flag)
            rows.append(np.arange(first, first + height))
            columns.append(np.arange(low, high))
            values.append(matrix[first : first + height, low:high].T.ravel())
    return Encoding(
        matrix.shape, np.array(heights), np.array(n), np.array(f), np.concatenate(rows), np.concatenate(columns),
        np.concatenate(values).astype(np.float32), np.array(parts or [0, len(heights)]), np.array([0, len(heights)]),
    )  # fmt: skip


def run_conv(
    runner: Runner, encoding: Encoding, x: np.ndarray, windows: np.ndarray, vectors: int, tile: int, *,
    shift: int = 0, threads: int = 1, per_task: int = 1, outer: int = 0, plane: int | None = None, bias=None,
    slope=None, residual=None, mask=None, activation=("none", 0.0, 0.0),
) -> np.ndarray:  # fmt: skip
    """Run one conv record on one image of flat pixels; returns the output with guards around, [rows, plane]."""
    isa, m = runner.isa, encoding.shape[0]
    width = vectors * isa.lanes
    plane = plane or width + 3
    guard = 32
    groups, starts = group_table(encoding)
    calls, part_starts, sections = call_table(encoding, starts)
    tables: list[np.ndarray] = []
    places = {}

    def table(name: str, values: np.ndarray) -> None:
        places[name] = address(TABLES, sum(t.size for t in tables))
        tables.append(np.ascontiguousarray(values, np.int32).ravel())

    columns = encoding.columns.astype(np.int32)
    read_order(encoding, columns)
    table("offsets", windows[columns])
    table("groups", groups), table("calls", calls), table("parts", part_starts), table("sections", sections)
    if mask is not None:
        table("mask", mask)
    constants = [encoding.values]
    for name, values in (("bias", bias), ("slope", slope)):
        places[name] = NOWHERE if values is None else address(CONSTANTS, sum(c.size for c in constants))
        constants += [] if values is None else [np.asarray(values, np.float32)]
    arena = np.full(guard * 4 + x.size + m * plane * 2 + 64, GUARD, np.float32)
    x_at = guard + shift
    arena[x_at : x_at + x.size] = x
    out_at = x_at + x.size + guard
    res_at = out_at + m * plane + guard
    if residual is not None:
        arena[res_at : res_at + m * plane] = residual.ravel()
    kind, p0, p1 = activation
    plan = np.array(
        record(
            "conv", images=1, x=address(ARENA, x_at), out=address(ARENA, out_at), plane=plane,
            residual=NOWHERE if residual is None else address(ARENA, res_at), residual_plane=plane,
            weights=address(CONSTANTS, 0), n_sections=len(sections) - 1, activation=ACTIVATIONS[kind],
            p0=float_bits(p0), p1=float_bits(p1), vectors=vectors, tile=tile, tiles_per_task=per_task,
            pixels_outer=outer, rows=m, sums_in_out=int(len(part_starts) > len(sections)),
            **({"mask": NOWHERE} | places),
        ), np.int64,
    )  # fmt: skip
    before = arena.copy()
    runner.run(
        plan, np.concatenate(tables), np.concatenate(constants).astype(np.float32), arena, [],
        m * tile * isa.lanes + 16, threads,
    )  # fmt: skip
    untouched = np.ones(arena.size, bool)
    for row in range(m):
        untouched[out_at + row * plane : out_at + row * plane + width] = False
    assert_array_equal(arena[untouched], before[untouched], err_msg="written outside the output")
    return arena[out_at : out_at + m * plane].reshape(m, plane)[:, :width]


def expected(matrix: np.ndarray, x: np.ndarray, windows: np.ndarray, width: int) -> np.ndarray:
    return matrix @ np.stack([x[w : w + width] for w in windows]) if len(windows) else np.zeros((len(matrix), width))


def test_every_tile_is_exact(runner: Runner) -> None:
    """Full tiles, each tail, misaligned pointers, groups without columns, all zero and all dense."""
    rng = np.random.default_rng(0)
    for height, vectors in tiles(runner.isa):
        width = vectors * runner.isa.lanes
        windows = rng.permutation(40)[:K]
        x = integers(rng, width + 64)
        for matrix in (integers(rng, 2 * height, K), np.zeros((height, K), np.float32)):
            encoding = encoding_of(matrix, height, (FINAL,), [K])
            got = run_conv(runner, encoding, x, windows, vectors, vectors, shift=int(rng.integers(0, 5)))
            assert_array_equal(got, expected(matrix, x, windows, width), err_msg=f"{height}x{vectors}")
        nothing = encoding_of(np.zeros((height, 0), np.float32), height, (FINAL,), [0])
        got = run_conv(runner, nothing, x, windows, vectors, vectors)
        assert_array_equal(got, np.zeros((height, width)))


def test_partial_sums_add_up(runner: Runner) -> None:
    """Groups that continue through scratch give what one group gives."""
    rng = np.random.default_rng(1)
    for height, vectors in tiles(runner.isa)[:: 3 if "qemu" in runner.name else 1]:
        width = vectors * runner.isa.lanes
        windows, x, matrix = rng.permutation(40)[:K], integers(rng, width + 64), integers(rng, 2 * height, K)
        flags = (0, LOAD, LOAD, LOAD | FINAL)
        got = run_conv(runner, encoding_of(matrix, height, flags, [4, 0, 6, 1]), x, windows, vectors, vectors)
        assert_array_equal(got, expected(matrix, x, windows, width), err_msg=f"{height}x{vectors}")


def test_partial_sums_wait_in_the_output(runner: Runner) -> None:
    """A task goes over its tiles once per part; the epilogue comes only at the end."""
    rng = np.random.default_rng(4)
    for vectors, tile in ((7, 3), (5, 2), (1, 3)):
        width = vectors * runner.isa.lanes
        windows, x, matrix, bias = (
            rng.permutation(40)[:K],
            integers(rng, width + 64),
            integers(rng, 4, K),
            integers(rng, 4),
        )
        encoding = encoding_of(matrix, 2, (0, LOAD, LOAD | FINAL), [4, 3, 4], [0, 2, 4, 6])
        got = run_conv(runner, encoding, x, windows, vectors, tile, per_task=2, bias=bias, activation=("relu", 0, 0))
        assert_array_equal(got, np.maximum(expected(matrix, x, windows, width) + bias[:, None], 0))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("outer", [0, 1])
def test_tiles_sections_and_threads_cover_everything_once(runner: Runner, threads: int, outer: int) -> None:
    rng = np.random.default_rng(2)
    for vectors, tile, per_task in ((7, 3, 1), (7, 3, 2), (5, 2, 64), (1, 3, 1), (4, 3, 1)):
        width = vectors * runner.isa.lanes
        windows, x, matrix = rng.permutation(40)[:K], integers(rng, width + 64), integers(rng, 12, K)
        whole = encoding_of(matrix, 2, (FINAL,), [K])
        parts = Encoding(**{**whole.__dict__, "parts": np.array([0, 2, 3, 6]), "sections": np.array([0, 2, 3, 6])})
        got = run_conv(runner, parts, x, windows, vectors, tile, threads=threads, per_task=per_task, outer=outer)
        assert_array_equal(got, expected(matrix, x, windows, width), err_msg=f"{vectors} by {tile}")


def test_epilogue(runner: Runner) -> None:
    """Bias, residual, activation and padding mask, in this order."""
    rng = np.random.default_rng(3)
    vectors, height = 2, 2
    width = vectors * runner.isa.lanes
    windows, x, matrix = rng.permutation(40)[:K], integers(rng, width + 64), integers(rng, 4, K)
    bias, slope, residual = integers(rng, 4), integers(rng, 4), integers(rng, 4, width + 3)
    mask = np.where(np.arange(width) % 5 == 4, 0, -1)
    raw = expected(matrix, x, windows, width) + bias[:, None] + residual[:, :width]
    encoding = encoding_of(matrix, height, (FINAL,), [K])
    for activation, function in (
        (("relu", 0, 0), lambda a: np.maximum(a, 0)),
        (("clip", -3, 6), lambda a: np.clip(a, -3, 6)),
        (("leaky_relu", 0.5, 0), lambda a: np.where(a < 0, a * 0.5, a)),
        (("abs", 0, 0), np.abs),
    ):
        got = run_conv(
            runner, encoding, x, windows, vectors, vectors, bias=bias, residual=residual, mask=mask,
            activation=activation,
        )  # fmt: skip
        assert_array_equal(got, np.where(mask, function(raw), 0), err_msg=activation[0])
    got = run_conv(
        runner, encoding, x, windows, vectors, vectors, bias=bias, slope=slope, activation=("leaky_relu", 0, 0)
    )
    raw = expected(matrix, x, windows, width) + bias[:, None]
    assert_array_equal(got, np.where(raw < 0, raw * slope[:, None], raw))


def test_rows_of_a_group_begin_and_end_alone(runner: Runner) -> None:
    """Block by block, with each activation: rows that wait go to scratch as they are, rows that end through the
    epilogue."""
    rng = np.random.default_rng(5)
    some = [(h, v) for h, v in tiles(runner.isa) if h <= MOST_MIXED]
    kinds = (("none", 0, 0), ("relu", 0, 0), ("clip", -3, 6), ("leaky_relu", 0.5, 0))
    for i, (height, vectors) in enumerate(some[:: 3 if "qemu" in runner.name else 1]):
        width, m = vectors * runner.isa.lanes, 2 * height + 1
        windows, x = rng.permutation(40)[:K], integers(rng, width + 64)
        matrix = integers(rng, m, K)
        for j in range(0, K, 3):
            matrix[rng.permutation(m)[: m - height], j : j + 3] = 0
        encoding = encode_blocks(matrix, (m, 3), (height, 1), m)
        assert (encoding.flags & MIXED).any() or height == 1
        bias, residual, mask = integers(rng, m), integers(rng, m, width + 3), np.where(np.arange(width) % 5 == 4, 0, -1)
        kind, p0, p1 = kinds[i % len(kinds)]
        got = run_conv(
            runner, encoding, x, windows, vectors, vectors, bias=bias, residual=residual, mask=mask,
            activation=(kind, p0, p1),
        )  # fmt: skip
        raw = expected(matrix, x, windows, width) + bias[:, None] + residual[:, :width]
        function = {
            "none": lambda a: a, "relu": lambda a: np.maximum(a, 0), "clip": lambda a: np.clip(a, -3, 6),
            "leaky_relu": lambda a: np.where(a < 0, a * 0.5, a),
        }[kind]  # fmt: skip
        assert_array_equal(got, np.where(mask, function(raw), 0), err_msg=f"{height}x{vectors} {kind}")
        plain = run_conv(runner, encoding, x, windows, vectors, vectors)
        assert_array_equal(plain, expected(matrix, x, windows, width), err_msg=f"{height}x{vectors}")


def test_rows_with_columns_of_their_own(runner: Runner) -> None:
    """Each width of each kernel, at once and in chunks, rows filled up with zeros among them."""
    rng = np.random.default_rng(6)
    for apart, most in runner.isa.apart:
        for vectors in range(1, most + 1):
            width = vectors * runner.isa.lanes
            windows, x = rng.permutation(40)[:K], integers(rng, width + 64)
            matrix = integers(rng, 2 * apart + 1, K) * (rng.random((2 * apart + 1, K)) < 0.6)
            for chunk in (0, 4):
                encoding = encode_rows(matrix.astype(np.float32), (1,), 10**9, chunk=chunk, apart=apart)
                assert (encoding.flags & APART).any()
                bias = integers(rng, len(matrix))
                got = run_conv(runner, encoding, x, windows, vectors, vectors, bias=bias)
                want = expected(matrix, x, windows, width) + bias[:, None]
                assert_array_equal(got, want, err_msg=f"{apart}x{vectors}")


def test_nan_in_padding_becomes_zero(runner: Runner) -> None:
    """Lanes in padding compute garbage; the mask must clear even NaN."""
    vectors = 1
    width = runner.isa.lanes
    x = np.full(width, np.nan, np.float32)
    mask = np.arange(width) * 0
    encoding = encoding_of(np.ones((1, 1), np.float32), 1, (FINAL,), [1])
    got = run_conv(runner, encoding, x, np.array([0]), vectors, vectors, mask=mask)
    assert_array_equal(got, np.zeros((1, width)))


def test_group_table_shares_columns() -> None:
    """Groups marked SHARED point to the columns of the group before."""
    from prunus.sparsity.encoding import encode_rows

    matrix = np.ones((8, 5), np.float32)
    encoding = encode_rows(matrix, (4, 1), 1000)
    assert_array_equal(column_starts(encoding), [0, 0])
    assert encoding.columns.size == 5
