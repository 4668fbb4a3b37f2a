"""The smallest block that is about as fast as the best, from measured rows."""

import pytest

from prunus.compiler.blocks import candidates, choose_blocks
from prunus.compiler.explore import ExploreRow
from prunus.errors import SchemeError
from prunus.sparsity.scheme import parse


def row(scheme: str, ms: float | None, layer: str = "a", dense: float = 1.0) -> ExploreRow:
    return ExploreRow(layer, (64, 64, 3, 3), 2, scheme, 0.9, 0.9, ms, dense, "" if ms else "doesn't fit")


@pytest.mark.parametrize(
    ("tolerance", "expected"), [(0.0, "bcr:16x64"), (0.1, "bcr:8x64"), (0.6, "bcr:8x16"), (9.0, "bcr:8x16")]
)
def test_smallest_within_tolerance(tolerance: float, expected: str) -> None:
    """Whatever the order of rows; never one that is slower than dense."""
    times = {"bcr:16x64": 0.5, "bcr:4x16": 2.0, "bcr:8x64": 0.54, "bcr:8x16": 0.79, "bcr:32x128": 0.51}
    (choice,) = choose_blocks([row(scheme, ms) for scheme, ms in times.items()], tolerance)
    assert (choice.scheme, choice.ms) == (expected, times[expected])
    assert (choice.best, choice.best_ms, choice.count) == ("bcr:16x64", 0.5, 2)


def test_of_equal_size_fewer_rows() -> None:
    (choice,) = choose_blocks([row("bcr:16x32", 0.5), row("bcr:8x64", 0.5), row("bcr:32x16", 0.5)], 0.1)
    assert choice.scheme == "bcr:8x64"


def test_dense_where_nothing_is_faster() -> None:
    slow, none = choose_blocks([row("bcr:8x64", 1.2), row("bcr:8x64", None, "b")], 0.1)
    assert (slow.scheme, slow.best, slow.best_ms) == (None, "bcr:8x64", 1.2)
    assert (none.layer, none.scheme, none.best, none.times) == ("b", None, None, {})


@pytest.mark.parametrize("family", ["bcr", "block-row", "block-column", "punched"])
def test_candidates_are_schemes_from_small_to_large(family: str) -> None:
    blocks = [parse(text).block for text in candidates(family)]
    assert len(set(blocks)) == len(blocks) > 8
    assert [r * c for r, c in blocks] == sorted(r * c for r, c in blocks)


def test_a_family_without_blocks() -> None:
    with pytest.raises(SchemeError, match=r"'filter'.*bcr, block-row, block-column, punched"):
        candidates("filter")
