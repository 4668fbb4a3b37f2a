"""`check` names the first place that disobeys."""

import numpy as np
import pytest

from prunus.sparsity.check import check
from prunus.sparsity.project import random_mask
from prunus.sparsity.scheme import FORMS, parse

SHAPE = (16, 128, 3, 3)


@pytest.mark.parametrize("text", [text for text in FORMS.values() if text != "unstructured"])
def test_one_flipped_weight_is_found(text: str) -> None:
    scheme = parse(text)
    mask = random_mask(SHAPE, scheme, 0.5 if text == "2:4" else 0.9, 0)
    assert check(mask, scheme) is None
    removed = np.argwhere(~mask)
    mask[tuple(removed[len(removed) // 2])] = True
    refusal = check(mask, scheme)
    assert refusal is not None and text in refusal.reason


@pytest.mark.parametrize(
    ("text", "place", "facts"),
    [
        ("filter", (5, 7, 1, 1), ["filter 5"]),
        ("channel", (5, 7, 1, 1), ["channel 7"]),
        ("punched:8x4", (9, 7, 1, 2), ["filter 8-15", "channel 4-7", "kernel position 5"]),
        ("block-row:8x64", (9, 7, 1, 2), ["filter 9", "column 64-127"]),
        ("block-column:8x64", (9, 7, 1, 2), ["filter 8-15", "column 68"]),
        ("2:4", (9, 7, 1, 2), ["filter 9", "channel 4-7", "kernel position 5", "3 kept"]),
        ("pattern:4", (9, 7, 1, 2), ["filter 9", "channel 7", "1 kept"]),
    ],
)
def test_the_place_is_named(text: str, place: tuple[int, ...], facts: list[str]) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[place] = True
    if text == "2:4":
        mask[9, 4:6, 1, 2] = True
    refusal = check(mask, parse(text))
    assert refusal is not None
    assert all(fact in refusal.reason for fact in facts), refusal.reason


def test_bcr_names_the_block() -> None:
    mask = np.zeros((16, 128), bool)
    mask[9, 70] = mask[10, 71] = True
    refusal = check(mask, parse("bcr:8x64"))
    assert refusal is not None and "row 8, column 64" in refusal.reason
    mask[9, 71] = mask[10, 70] = True
    assert check(mask, parse("bcr:8x64")) is None


def test_unstructured_and_empty_masks_obey() -> None:
    assert check(np.array([[True, False]]), parse("unstructured")) is None
    assert check(np.zeros((0, 8), bool), parse("bcr:8x64")) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    refusal = check(np.ones((4, 4, 5, 5), bool), parse("pattern:4"))
    assert refusal is not None and "5x5" in refusal.reason
