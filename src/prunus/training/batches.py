"""Which samples make which batch, and what chance does to them: all of it a function of seed and step.

So a run that is resumed needs no generators' states, and several processes share a batch as one would have it.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import TrainingError
from prunus.training.standard import Augment


def batch_size(asked: int, n_samples: int, world: int) -> int:
    """Of all processes together; no more than there are samples.

    Raises TrainingError: it can't be shared evenly.
    """
    size = min(asked, n_samples)
    if size % world:
        raise TrainingError(f"data.batch_size {size}: expected a multiple of the {world} processes")
    return size


def order(n_samples: int, seed: int, epoch: int) -> Tensor:
    """int64[n]: the samples of an epoch in their order."""
    return torch.randperm(n_samples, generator=_generator(seed, epoch, 1))


def share(indices: Tensor, rank: int, world: int) -> list[int]:
    """What of a batch is this process's."""
    found: list[int] = indices[rank::world].tolist()
    return found


def shares(n_samples: int, size: int, rank: int, world: int) -> Iterator[tuple[list[int], int]]:
    """Samples to evaluate, in batches, and how many of them count: every process gets as many batches, the last one
    filled up where it has none."""
    for start in range(0, n_samples, size):
        mine = share(torch.arange(start, min(start + size, n_samples)), rank, world)
        yield mine or [start], len(mine)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Begin all generators anew for a step, each process its own way."""
    number = (seed * 1_000_003 + step * 1_009 + rank) % 2**32
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def augmented(x: Tensor, how: Augment, seed: int, step: int, rank: int, world: int) -> Tensor:
    """float32[n, c, h, w], each image moved and flipped by chance, as it would be in the whole batch on one process."""
    if x.ndim != 4 or not (how.shift or how.flip):
        return x
    generator = _generator(seed, step, 2)
    n, mine = len(x) * world, slice(rank, None, world)
    down, right = torch.randint(-how.shift, how.shift + 1, (2, n), generator=generator)[:, mine]
    mirrored = (torch.rand(n, generator=generator) < 0.5)[mine] & how.flip
    if how.shift:
        padded = nn.functional.pad(x, (how.shift,) * 4, mode="replicate")
        rows = torch.arange(x.shape[2])[None] + (down + how.shift)[:, None]
        columns = torch.arange(x.shape[3])[None] + (right + how.shift)[:, None]
        which = torch.arange(len(x))[:, None, None]
        x = padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def _generator(seed: int, number: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) * 4 + purpose)
