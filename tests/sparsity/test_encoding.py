"""Row groups: decode gives back the matrix exactly, and the rules that kernels rely on hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunus.compiler.choice import LayerShape, candidates, examine
from prunus.compiler.encode import encode
from prunus.kernels.isa import ISAS, Isa
from prunus.sparsity.encoding import (
    APART,
    ENDS,
    FINAL,
    LOAD,
    LOADS,
    MIXED,
    MOST_MIXED,
    SHARED,
    Encoding,
    column_starts,
    compact,
    decode,
    encode_blocks,
    encode_rows,
    expand,
    read_order,
    value_starts,
)
from prunus.sparsity.project import project
from prunus.sparsity.scheme import parse

Matrix = NDArray[np.float32]
SCHEMES = (
    "filter",
    "channel",
    "block-row:4x8",
    "block-column:4x8",
    "bcr:4x8",
    "bcr:8x16",
    "2:4",
    "punched:4x2",
    "unstructured",
)
HEIGHTS = [
    (1,),
    (2, 1),
    (4, 2, 1),
    (6, 4, 3, 2, 1),
    (1, 12, 5),
    *(isa.gemv_heights() for isa in ISAS[:3]),
    *(tuple(h for h, _ in isa.tiles) for isa in ISAS[:2]),
]
heights_of = st.sampled_from(HEIGHTS)


def plain(m: int, k: int, density: float, seed: int) -> Matrix:
    """A matrix whose values tell places apart, with zeros anywhere."""
    rng = np.random.default_rng(seed)
    values = np.arange(1, m * k + 1, dtype=np.float32).reshape(m, k)
    return values * rng.choice(np.float32([-1, 1]), (m, k)) * (rng.random((m, k)) < density)


def rowwise(m: int, k: int, density: float, seed: int) -> Matrix:
    """Rows of a few masks, so that some share their columns; and some empty rows."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, k)) < density
    masks[0] &= density > 0.5
    return plain(m, k, 1, seed) * masks[rng.integers(0, 3, m)]


def blockwise(m: int, k: int, density: float, seed: int) -> Matrix:
    """Blocks of 4 x 8, each with some rows and columns kept."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((m, k), bool)
    for i in range(0, m, 4):
        for j in range(0, k, 8):
            mask[i : i + 4, j : j + 8] = np.outer(rng.random(4) < density, rng.random(8) < density)[: m - i, : k - j]
    return plain(m, k, 1, seed) * mask


def scheme(m: int, k: int, density: float, seed: int) -> Matrix:
    """A scheme of the list, where the shape allows it."""
    matrix = plain(m, k, 1, seed)
    text = SCHEMES[seed % len(SCHEMES)]
    sparsity = 0.5 if text == "2:4" else max(1 - density, {"2:4": 0.5}.get(text, 0.0))
    return matrix * project(matrix, parse(text), sparsity)


@st.composite
def matrices(draw: st.DrawFn, most: int = 40) -> Matrix:
    """Any shape and kind of zeros, all zero and all dense among them."""
    make = draw(st.sampled_from([plain, rowwise, blockwise, scheme]))
    m, k = draw(st.integers(1, most)), draw(st.integers(1, most))
    return make(m, k, draw(st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0])), draw(st.integers(0, 999)))


def row_starts(encoding: Encoding) -> NDArray[np.int64]:
    return np.cumsum(encoding.heights) - encoding.heights


def check(encoding: Encoding, heights: tuple[int, ...], matrix: Matrix) -> None:
    """The matrix comes back, and what kernels take for granted is so."""
    np.testing.assert_array_equal(decode(encoding), matrix)
    assert encoding.shape == matrix.shape
    assert encoding.kept == int((encoding.heights * encoding.counts).sum())
    assert set(encoding.heights.tolist()) <= set(heights), "only heights that kernels have"
    assert encoding.sections[0] == 0 and encoding.sections[-1] == len(encoding.heights)
    assert (np.diff(encoding.sections) > 0).all(), "no section is empty"
    owner: dict[int, int] = {}
    begun, ended = np.zeros(len(matrix), int), np.zeros(len(matrix), int)
    starts = row_starts(encoding)
    places, firsts = column_starts(encoding), value_starts(encoding)
    for section in range(len(encoding.sections) - 1):
        for group in range(*encoding.sections[section : section + 2]):
            rows = encoding.rows[starts[group] : starts[group] + encoding.heights[group]]
            n, apart = encoding.counts[group], bool(encoding.flags[group] & APART)
            columns = encoding.columns[places[group] : places[group] + n * (len(rows) if apart else 1)]
            assert len(set(rows.tolist())) == len(rows) and len(columns) == n * (len(rows) if apart else 1)
            for own in columns.reshape(-1, n) if n else []:
                assert (np.diff(own) >= 0).all() if apart else (np.diff(own) > 0).all(), "columns rise"
            assert firsts[group] + encoding.heights[group] * encoding.counts[group] <= encoding.values.size
            flags = int(encoding.flags[group])
            assert not flags & MIXED or (len(rows) <= MOST_MIXED and not flags & (LOAD | FINAL)), "one way to say it"
            for r, row in enumerate(rows.tolist()):
                load = flags & LOAD or (flags & MIXED and flags >> (LOADS + r) & 1)
                final = flags & FINAL or (flags & MIXED and flags >> (ENDS + r) & 1)
                assert owner.setdefault(row, section) == section, "a section owns its rows"
                assert bool(load) == bool(begun[row]), "only the first group of a row starts from nothing"
                assert not ended[row], "nothing follows a row's last group"
                begun[row] += 1
                ended[row] += bool(final)
    assert (ended == 1).all(), "each row ends once"


@settings(max_examples=250, deadline=None)
@given(
    matrix=matrices(),
    heights=heights_of,
    section=st.sampled_from([1, 7, 64, 500, 10**9]),
    chunk=st.sampled_from([0, 1, 5, 8, 16, 40, 64]),
    union=st.sampled_from([1, 2, 4, 5, 64]),
)
def test_rows(matrix: Matrix, heights: tuple[int, ...], section: int, chunk: int, union: int) -> None:
    encoding = encode_rows(matrix, heights, section, chunk=chunk, union=union)
    check(encoding, heights, matrix)
    if union == 1:
        assert encoding.kept == np.count_nonzero(matrix), "nothing is padded"


@settings(max_examples=150, deadline=None)
@given(
    matrix=matrices(),
    heights=heights_of,
    block=st.sampled_from([(1, 1), (4, 8), (8, 4), (3, 7), (16, 64), (64, 1)]),
    section=st.sampled_from([1, 4, 16, 100]),
    columns_outer=st.booleans(),
)
def test_blocks(
    matrix: Matrix, heights: tuple[int, ...], block: tuple[int, int], section: int, columns_outer: bool
) -> None:
    encoding = encode_blocks(matrix, block, heights, section, columns_outer=columns_outer)
    check(encoding, heights, matrix)


@settings(max_examples=100, deadline=None)
@given(
    matrix=matrices(),
    apart=st.sampled_from([2, 3, 4]),
    section=st.sampled_from([1, 64, 10**9]),
    chunk=st.sampled_from([0, 5, 16, 64]),
)
def test_rows_side_by_side(matrix: Matrix, apart: int, section: int, chunk: int) -> None:
    encoding = encode_rows(matrix, (1,), section, chunk=chunk, apart=apart)
    check(encoding, (1, apart), matrix)
    again = expand(encoding.shape, compact(encoding))
    np.testing.assert_array_equal(decode(again), matrix)


def test_rows_side_by_side_go_column_by_column() -> None:
    """Rows of about as many columns meet, the longest first; kernels read the columns in turn."""
    matrix = np.zeros((4, 9), np.float32)
    matrix[0, [1, 5]], matrix[1, [0]], matrix[2, [2, 3, 8]], matrix[3, [4]] = 1, 2, 3, 4
    encoding = encode_rows(matrix, (1,), 10**9, apart=2)
    assert encoding.rows.tolist() == [2, 0, 1, 3] and encoding.counts.tolist() == [3, 1]
    assert encoding.columns.tolist() == [2, 3, 8, 1, 5, 5, 0, 4]
    columns = encoding.columns.astype(np.int32)
    read_order(encoding, columns)
    assert columns.tolist() == [2, 1, 3, 5, 8, 5, 0, 4]
    assert encoding.values.tolist() == [3, 1, 3, 1, 3, 0, 2, 4]


def test_rows_of_a_block_begin_and_end_alone() -> None:
    """No pass before and after the blocks: a row's first block starts from nothing, its last one ends it."""
    matrix = np.zeros((4, 4), np.float32)
    matrix[:2, :2] = matrix[1:3, 2:] = 1
    encoding = encode_blocks(matrix, (4, 2), (2, 1), 4)
    assert encoding.heights.tolist() == [2, 2, 1] and encoding.rows.tolist() == [0, 1, 1, 2, 3]
    ends, loads = MIXED | 1 << ENDS, MIXED | 1 << LOADS | 3 << ENDS
    assert encoding.flags.tolist() == [ends, loads, FINAL]


def test_blocks_pad_nothing_where_they_fit() -> None:
    matrix = blockwise(22, 50, 0.5, 3)
    assert encode_blocks(matrix, (4, 8), (4, 2, 1), 8).kept == np.count_nonzero(matrix)


def test_rows_fill_groups() -> None:
    """Rows of one mask, scattered over the matrix, meet in groups."""
    matrix = np.zeros((12, 6), np.float32)
    matrix[::2, 1:4], matrix[1::2, 3:] = 1, 2
    encoding = encode_rows(matrix, (4, 2, 1), 10**9)
    assert sorted(encoding.heights.tolist()) == [2, 2, 4, 4]
    assert len(encoding.columns) == 3 * (4 - np.count_nonzero(encoding.flags & SHARED))
    check(encoding, (4, 2, 1), matrix)


def test_many_columns() -> None:
    """Rows too long to be sorted as packed masks are told apart as well."""
    matrix = np.repeat(plain(6, 700, 0.1, 4), 3, axis=0)
    encoding = encode_rows(matrix, (3, 1), 10**9, chunk=256)
    assert (encoding.heights == 3).all()
    check(encoding, (3, 1), matrix)


@pytest.mark.parametrize("size", [255, 256, 257, 70000])
def test_columns_as_steps(size: int) -> None:
    matrix = np.zeros((2, size), np.float32)
    matrix[0, [0, size - 1]] = 1
    matrix[1, [1, size - 1]] = 1
    encoding = encode_rows(matrix, (1,), 10**9)
    arrays = compact(encoding)
    steps = [0, size - 1, 2 - size, size - 2]  # there, back to the next row's first, and there again
    assert list(arrays["steps"]) == [step if 0 < step < 256 else 0 for step in steps]
    assert list(arrays["jumps"]) == [step for step in steps if not 0 < step < 256]
    np.testing.assert_array_equal(decode(expand(matrix.shape, arrays)), matrix)


@settings(max_examples=50, deadline=None)
@given(matrix=matrices(), heights=heights_of, chunk=st.sampled_from([0, 8]))
def test_compact_and_expand(matrix: Matrix, heights: tuple[int, ...], chunk: int) -> None:
    encoding = encode_rows(matrix, heights, 64, chunk=chunk)
    again = expand(encoding.shape, compact(encoding))
    assert again.shape == encoding.shape
    for name in ("heights", "counts", "flags", "rows", "columns", "parts", "sections", "values"):
        array = getattr(again, name)
        np.testing.assert_array_equal(array, getattr(encoding, name))
        assert array.dtype == {"values": np.float32, "columns": np.int32}.get(name, np.int64)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
@settings(max_examples=60, deadline=None)
@given(
    matrix=matrices(80),
    groups=st.sampled_from([1, 1, 2, 3]),
    vectors=st.sampled_from([0, 1, 2, 5, 30, 800]),
    threads=st.sampled_from([1, 2, 8]),
)
def test_candidates(isa: Isa, matrix: Matrix, groups: int, vectors: int, threads: int) -> None:
    """Whatever is proposed for a layer encodes it exactly, with a kernel that the library has."""
    if len(matrix) % groups:
        groups = 1
    if not vectors:
        groups = 1
    m, k = matrix.shape
    whole = np.zeros((m, k * groups), np.float32)
    for group, rows in enumerate(np.split(np.arange(m), groups)):
        whole[rows, group * k : (group + 1) * k] = matrix[rows]
    found = candidates(LayerShape(m, k * groups, groups, vectors, threads), examine(matrix), isa)
    assert found and len(set(found)) == len(found)
    for choice in found:
        check(encode(matrix, groups, choice), (*choice.heights, choice.apart), whole)
        assert choice.tiles_per_task >= 1 and choice.section >= 1
        if vectors:
            assert all(1 <= choice.tile <= dict(isa.tiles)[height] for height in choice.heights), str(choice)
        else:
            assert set(choice.heights) <= set(isa.gemv_heights())


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
def test_depthwise_candidates(isa: Isa) -> None:
    """A group per row."""
    matrix = plain(20, 9, 0.7, 1)
    whole = np.zeros((20, 180), np.float32)
    for row in range(20):
        whole[row, row * 9 : row * 9 + 9] = matrix[row]
    for choice in candidates(LayerShape(20, 180, 20, 10, 1), examine(matrix), isa):
        check(encode(matrix, 20, choice), choice.heights, whole)


def test_examine_finds_blocks() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 256), bool)
    for i in range(0, 64, 8):
        for j in range(0, 256, 64):
            mask[np.ix_(i + rng.permutation(8)[:4], j + rng.permutation(64)[:20])] = True
    zeros = examine(mask.astype(np.float32))
    assert zeros.block == (8, 64) and zeros.block_rows == 4
    assert zeros.density == pytest.approx(4 / 8 * 20 / 64)
    assert examine(np.ones((8, 8), np.float32)).block is None
    assert examine(np.zeros((8, 8), np.float32)).density == 0
