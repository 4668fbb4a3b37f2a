"""Batches are shared out without loss, and chance is a function of seed and step."""

import numpy as np
import pytest
import torch

from prunus.errors import TrainingError
from prunus.training.batches import augmented, batch_size, order, seed_step, share, shares
from prunus.training.standard import Augment


def test_processes_share_a_batch() -> None:
    batch = torch.arange(12)
    parts = [share(batch, rank, 3) for rank in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(12))
    assert {len(part) for part in parts} == {4}


@pytest.mark.parametrize("n", [1, 5, 8, 9])
def test_each_sample_is_evaluated_once_and_all_are_as_long_busy(n: int) -> None:
    lists = [list(shares(n, 4, rank, 2)) for rank in range(2)]
    assert len(lists[0]) == len(lists[1])
    assert all(indices for part in lists for indices, _ in part)
    assert sorted(i for part in lists for indices, counted in part for i in indices[:counted]) == list(range(n))


def test_epochs_have_orders_of_their_own() -> None:
    first = order(50, 0, 0)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, order(50, 0, 0))
    assert not torch.equal(first, order(50, 0, 1))
    assert not torch.equal(first, order(50, 1, 0))


def test_batches_divide_among_processes() -> None:
    assert batch_size(64, 30, 1) == 30
    with pytest.raises(TrainingError, match="batch_size 30: expected a multiple of the 4 processes"):
        batch_size(64, 30, 4)


def test_augmented_images_are_the_same_on_any_number_of_processes() -> None:
    x = torch.arange(8 * 2 * 5 * 4, dtype=torch.float32).reshape(8, 2, 5, 4)
    how = Augment(shift=2, flip=True)
    whole = augmented(x, how, 3, 7, 0, 1)
    assert whole.shape == x.shape and not torch.equal(whole, x)
    for rank in range(2):
        assert torch.equal(augmented(x[rank::2], how, 3, 7, rank, 2), whole[rank::2])
    assert not torch.equal(augmented(x, how, 3, 8, 0, 1), whole)


def test_images_move_by_whole_pixels_with_their_edges() -> None:
    x = torch.randn(64, 1, 6, 6)
    moved = augmented(x, Augment(shift=1), 0, 0, 0, 1)
    seen = set()
    for image, result in zip(x, moved, strict=True):
        padded = np.pad(image[0].numpy(), 1, mode="edge")
        found = [(d, r) for d in range(3) for r in range(3) if np.array_equal(padded[d : d + 6, r : r + 6], result[0])]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 9
    flipped = augmented(x, Augment(flip=True), 0, 0, 0, 1)
    same = [torch.equal(a, b) for a, b in zip(x, flipped, strict=True)]
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(x, flipped, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 < sum(same) < 48


def test_a_step_begins_all_generators() -> None:
    def draw() -> tuple[float, float]:
        return float(torch.rand(1)), float(np.random.rand())

    seed_step(0, 5, 0)
    first = draw()
    seed_step(0, 5, 1)
    assert draw() != first
    seed_step(0, 5, 0)
    assert draw() == first
