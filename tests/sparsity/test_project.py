"""Every scheme on many shapes: exact counts, obedience, idempotence, nesting, ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunus.errors import SchemeError
from prunus.sparsity.check import check, fits
from prunus.sparsity.crossed import project_crossed
from prunus.sparsity.project import project, random_mask, resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse
from prunus.sparsity.schemes import SCHEMES

TEXTS = [
    "filter", "channel", "block-row:4x8", "block-column:4x8", "block-column:3x5", "punched:8x4",
    "punched:3x2", "bcr:4x8", "bcr:8x4", "bcr:1x1", "bcr:3x1", "2:4", "1:4", "3:16", "pattern:4",
    "unstructured",
]  # fmt: skip
SHAPES = [(1, 1), (1, 17), (9, 1), (16, 32), (13, 21), (8, 5, 1, 1), (12, 6, 3, 3), (7, 9, 3, 3)]
CASES = [(t, s) for t in TEXTS for s in SHAPES if fits(s, parse(t)) is None]


def draw(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    weights = np.random.default_rng(seed).standard_normal(shape, np.float32)
    weights[weights == 0] = 1
    return weights


def asked(scheme: Scheme, sparsity: float) -> float:
    """The sparsity, moved to where the scheme can have it."""
    own = 1 - SCHEMES[scheme.name].densest(scheme)
    return own if SCHEMES[scheme.name].fixed else max(sparsity, own)


def biggest_group(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """Weights that at most go at once."""
    columns = int(np.prod(shape[1:]))
    numbers = {
        "filter": lambda: columns,
        "channel": lambda: shape[0] * int(np.prod(shape[2:])),
        "block-row": lambda: min(scheme.block[1], columns),
        "block-column": lambda: min(scheme.block[0], shape[0]),
        "punched": lambda: min(scheme.block[0], shape[0]) * min(scheme.block[1], shape[1]),
        "bcr": lambda: min(scheme.block[0], shape[0]),
        "pattern": lambda: scheme.block[0],
    }
    return numbers.get(scheme.name, lambda: 1)()


def test_every_family_is_tested() -> None:
    assert {parse(text).name for text in TEXTS} == set(SCHEMES)


@pytest.mark.parametrize(("text", "shape"), CASES)
@settings(max_examples=10, deadline=None)
@given(sparsity=st.floats(0, 1), seed=st.integers(0, 99))
def test_projection(text: str, shape: tuple[int, ...], sparsity: float, seed: int) -> None:
    scheme, weights = parse(text), draw(shape, seed)
    sparsity = asked(scheme, sparsity)
    mask = project(weights, scheme, sparsity)
    assert mask.shape == shape and mask.dtype == bool
    assert check(mask, scheme) is None
    zeros = mask.size - np.count_nonzero(mask)
    group = biggest_group(scheme, shape)
    only = sparsity < 1 and np.count_nonzero(mask) <= group  # the last group stays
    assert abs(zeros - sparsity * mask.size) <= group / 2 + 1e-3 or only
    achieved = sparsity if SCHEMES[scheme.name].fixed else zeros / mask.size
    np.testing.assert_array_equal(project(weights * mask, scheme, achieved), mask)


@pytest.mark.parametrize(("text", "shape"), [case for case in CASES if SCHEMES[parse(case[0]).name].nested])
@settings(max_examples=10, deadline=None)
@given(pair=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 99))
def test_more_sparsity_keeps_a_subset(text: str, shape: tuple[int, ...], pair: tuple[float, float], seed: int) -> None:
    scheme, weights = parse(text), draw(shape, seed)
    low, high = (asked(scheme, sparsity) for sparsity in sorted(pair))
    assert (project(weights, scheme, low) >= project(weights, scheme, high)).all()


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_ties_are_resolved_and_counted(text: str, shape: tuple[int, ...]) -> None:
    scheme = parse(text)
    weights = np.random.default_rng(1).integers(-1, 2, shape).astype(np.float32)
    sparsity = asked(scheme, 0.6)
    mask = project(weights, scheme, sparsity)
    assert check(mask, scheme) is None
    np.testing.assert_array_equal(project(weights.copy(), scheme, sparsity), mask)
    same = project(np.ones(shape, np.float32), scheme, sparsity)
    error = abs(np.count_nonzero(~same) - sparsity * same.size)
    group = biggest_group(scheme, shape)
    assert error <= group / 2 + 1e-6 or np.count_nonzero(same) <= group


def test_ties_go_to_the_lower_index() -> None:
    ones = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(project(ones, parse("unstructured"), 0.5), [[True] * 4, [False] * 4])
    np.testing.assert_array_equal(project(ones, parse("2:4"), None), [[True, True, False, False]] * 2)
    np.testing.assert_array_equal(project(ones, parse("filter"), 0.5), [[True] * 4, [False] * 4])


@pytest.mark.parametrize("text", [t for t in TEXTS if t not in ("pattern:4", "filter", "channel")])
@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (128, 64, 3, 3), (320, 1152), (100, 77, 3, 3), (24, 144, 1, 1)])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9, 0.95])
def test_real_shapes_meet_the_sparsity(text: str, shape: tuple[int, ...], sparsity: float) -> None:
    scheme = parse(text)
    sparsity = asked(scheme, sparsity)
    mask = random_mask(shape, scheme, sparsity, 0)
    assert abs(1 - mask.mean() - sparsity) <= 0.02


def test_filter_and_channel_are_not_swapped() -> None:
    weights = np.ones((3, 4, 2, 2), np.float32)
    weights[1] = weights[:, 2] = 0.1
    filters, channels = (project(weights, parse(t), s) for t, s in (("filter", 1 / 3), ("channel", 0.25)))
    assert not filters[1].any() and filters[[0, 2]].all()
    assert not channels[:, 2].any() and channels[:, [0, 1, 3]].all()


def test_punched_groups_are_filters_by_channels_at_one_position() -> None:
    weights = np.ones((4, 4, 1, 2), np.float32)
    weights[2:4, 0:2, 0, 1] = 0.5
    mask = project(weights, parse("punched:2x2"), 4 / 32)
    assert not mask[2:4, 0:2, 0, 1].any() and np.count_nonzero(~mask) == 4


def test_block_columns_and_rows_are_pieces_of_their_block() -> None:
    weights = np.ones((4, 8), np.float32)
    weights[0:2, [1, 6]] = weights[2:4, [0, 7]] = 0.5
    mask = project(weights, parse("block-column:2x4"), 0.25)
    np.testing.assert_array_equal(mask, weights == 1)
    np.testing.assert_array_equal(project(weights.T, parse("block-row:4x2"), 0.25), weights.T == 1)


def test_blocks_keep_their_share_to_within_one() -> None:
    weights = draw((16, 64), 0) * np.repeat([[1, 100]], 32, axis=1).reshape(1, 64)
    mask = project(weights, parse("block-column:8x16"), 0.6)
    counts = mask[::8].reshape(2, 4, 16).sum(2)
    assert counts.min() == 6 and counts.max() == 7 and counts.sum() == round(0.4 * 128)


def test_n_m_counts_along_input_channels() -> None:
    weights = draw((5, 8, 3, 3), 3)
    counts = project(weights, parse("2:4"), 0.5).reshape(5, 2, 4, 9).sum(2)
    np.testing.assert_array_equal(counts, 2)


def test_one_by_one_bcr_is_unstructured() -> None:
    weights = draw((23, 31), 5)
    for sparsity in (0.1, 0.5, 0.93):
        np.testing.assert_array_equal(
            project(weights, parse("bcr:1x1"), sparsity),
            project(weights, parse("unstructured"), sparsity),
        )


def test_bcr_of_one_block_is_row_and_column_pruning() -> None:
    weights = draw((20, 30), 6)
    mask = project(weights, parse("bcr:64x64"), 0.75)
    rows, cols = mask.any(1), mask.any(0)
    np.testing.assert_array_equal(mask, rows[:, None] & cols[None])
    assert (rows.sum(), cols.sum()) == (10, 15)


def test_half_each_keeps_the_root_of_the_density() -> None:
    mask = random_mask((64, 256), parse("bcr:16x64"), 0.75, 0)
    tiles = mask.reshape(4, 16, 4, 64).swapaxes(1, 2)
    np.testing.assert_array_equal(tiles.any(3).sum(2), 8)
    np.testing.assert_array_equal(tiles.any(2).sum(2), 32)


@pytest.mark.parametrize(("split", "rows", "cols"), [(0.0, 8, 8), (1.0, 4, 16), (0.5, 6, 11)])
def test_split_moves_compression_between_rows_and_columns(split: float, rows: int, cols: int) -> None:
    mask = project_crossed(draw((8, 16), 0), Scheme("bcr", (8, 16)), 0.5, split)
    assert (mask.any(1).sum(), mask.any(0).sum()) == (rows, cols)


def test_bcr_keeps_nearly_the_most_energy() -> None:
    """Against brute force on 60 blocks of 6x6, half the rows and columns: alternation from both
    starts.
    """
    weights = draw((6 * 60, 6), 7)
    mask = project(weights, parse("bcr:6x6"), 0.75)
    blocks = (weights**2).reshape(60, 6, 6)
    kept = (blocks * mask.reshape(60, 6, 6)).sum((1, 2))
    sets = list(itertools.combinations(range(6), 3))
    best = np.array([max(b[np.ix_(r, c)].sum() for r in sets for c in sets) for b in blocks])
    assert (kept <= best * (1 + 1e-5)).all()
    assert (kept / best).mean() > 0.97 and (kept > best * (1 - 1e-5)).mean() > 0.6


def test_pattern_keeps_the_centre_and_few_patterns() -> None:
    mask = project(draw((32, 16, 3, 3), 8), parse("pattern:4"), None).reshape(-1, 9)
    assert mask[:, 4].all() and (mask.sum(1) == 4).all()
    assert len(np.unique(mask, axis=0)) <= 8


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes(dtype: type) -> None:
    weights = draw((8, 16), 2).astype(dtype)
    mask = project(weights, parse("bcr:4x8"), 0.5)
    np.testing.assert_array_equal(mask, project(weights.astype(np.float64), parse("bcr:4x8"), 0.5))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_rank_alike(scale: float) -> None:
    weights = draw((16, 32), 2)
    for text in ("bcr:4x8", "punched:2x2", "block-row:4x8"):
        np.testing.assert_array_equal(
            project(weights * np.float32(scale), parse(text), 0.7),
            project(weights, parse(text), 0.7),
        )


def test_empty_weights() -> None:
    assert project(np.zeros((0, 4), np.float32), parse("bcr:4x8"), 0.5).shape == (0, 4)


def test_all_zero_weights_still_meet_the_sparsity() -> None:
    for text in ("bcr:4x8", "filter", "2:4"):
        mask = project(np.zeros((8, 16), np.float32), parse(text), 0.5)
        assert abs(np.count_nonzero(mask) - 64) <= 1


def test_random_masks_depend_on_the_seed_only() -> None:
    one, same, other = (random_mask((32, 64), parse("bcr:8x16"), 0.9, s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("text", "sparsity", "facts"),
    [
        ("filter", None, ["filter", "between 0 and 1"]),
        ("filter", 90, ["90", "0.9"]),
        ("filter", -0.1, ["-0.1"]),
        ("filter", float("nan"), ["nan"]),
        ("filter", "0.5", ["'0.5'"]),
        ("2:4", 0.9, ["0.9", "2:4", "exactly 0.5"]),
        ("2:4", 0.4, ["0.4", "exactly 0.5"]),
        ("pattern:4", 0.3, ["0.3", "at least 0.5556"]),
    ],
)
def test_sparsities_that_cannot_be(text: str, sparsity: float, facts: list[str]) -> None:
    with pytest.raises(SchemeError) as caught:
        resolve_sparsity(parse(text), sparsity)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_schemes_that_do_not_fit() -> None:
    with pytest.raises(SchemeError, match=r"3x3.*1x1"):
        project(np.ones((4, 4, 1, 1), np.float32), parse("pattern:4"), None)
    with pytest.raises(SchemeError, match=r"\[4\]"):
        project(np.ones(4, np.float32), parse("filter"), 0.5)
