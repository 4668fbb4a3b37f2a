"""Images and labels to audit with, checked against the network: of the size that it takes, labels that it has."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prunus.audit.tasks import Source
from prunus.audit.victims import Victim
from prunus.errors import AuditError
from prunus.pruning.images import Scaling, is_image
from prunus.training.data import read_samples


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with labels; names: of classes, where a folder says them."""

    source: Source
    names: tuple[str, ...] = ()


def read_labelled(
    where: str,
    victims: tuple[Victim, ...],
    scaling: Scaling | None = None,
    resize: bool = False,
    most: int | None = None,
) -> Labelled:
    """Of an npz (x as networks take it, y), a folder of class-named folders, or `file.py:function` of a dataset.

    resize: images of another size are made to fit. most: so many at most, an even selection.
    Raises AuditError: networks that differ in what they take, images of another size, labels that aren't classes.
    TrainingError: no such data.
    """
    shape, classes = _common(victims)
    _check_channels(scaling or Scaling(), shape, where)
    if not resize and Path(where).is_dir():
        _check_sizes(Path(where), shape)
    samples, names = read_samples(where, "--data", shape if Path(where).is_dir() else None, scaling or Scaling())
    n = len(samples)
    x, y = samples.take(list(range(n)) if most is None or most >= n else _selection(n, most))
    if not bool(torch.isfinite(x).all()):
        raise AuditError(f"{where}: x has values that aren't finite")
    return Labelled(Source(Path(where).name, _fitting(x, shape, where, resize), _labels(y, x, classes, where)), names)


def _common(victims: tuple[Victim, ...]) -> tuple[tuple[int, ...], int]:
    first = victims[0]
    for other in victims[1:]:
        if (other.shape, other.classes) != (first.shape, first.classes):
            raise AuditError(
                f"{other.name} takes {list(other.shape)} and has {other.classes} classes, expected {list(first.shape)} "
                f"and {first.classes} as {first.name}"
            )
    return first.shape, first.classes


def _selection(n: int, most: int) -> list[int]:
    """One of each of `most` stretches, at random: fair to data sorted by class and to classes that take turns."""
    chance = torch.Generator().manual_seed(0)
    edges = [i * n // most for i in range(most + 1)]
    return [int(torch.randint(a, b, (), generator=chance)) for a, b in pairwise(edges)]


def _check_channels(scaling: Scaling, shape: tuple[int, ...], where: str) -> None:
    channels = shape[0] if len(shape) == 3 and shape[0] in (1, 3) else shape[-1]
    for option, numbers in (("--mean", scaling.mean), ("--std", scaling.std)):
        if len(numbers) not in (1, channels):
            raise AuditError(f"{where}: {option} has {len(numbers)} numbers, and the networks take {list(shape)}")


def _check_sizes(folder: Path, shape: tuple[int, ...]) -> None:
    from PIL import Image

    height, width = shape[1:] if len(shape) == 3 and shape[0] in (1, 3) else shape[:2]
    for file in sorted(f for f in folder.glob("*/**/*") if is_image(f)):
        try:
            with Image.open(file) as image:
                found = image.size
        except OSError:
            continue  # reading it says what is wrong with it
        if found != (width, height):
            raise AuditError(
                f"{file}: {found[0]}x{found[1]} pixels, expected {width}x{height}; with --resize images are made to fit"
            )


def _fitting(x: Tensor, shape: tuple[int, ...], where: str, resize: bool) -> Tensor:
    found = tuple(x.shape[1:])
    if found == shape:
        return x.float()
    if resize and len(found) == len(shape) == 3 and found[0] == shape[0]:
        return functional.interpolate(x.float(), shape[1:], mode="bilinear", align_corners=False, antialias=True)
    hint = "; with --resize images are made to fit" if len(found) == len(shape) == 3 and found[0] == shape[0] else ""
    raise AuditError(f"{where}: x is {list(found)}, expected {list(shape)}{hint if not resize else ''}")


def _labels(y: Tensor, x: Tensor, classes: int, where: str) -> Tensor:
    if y.is_floating_point() or y.ndim != 1:
        raise AuditError(
            f"{where}: y is {str(y.dtype).removeprefix('torch.')}{list(y.shape)}, expected whole numbers [n]"
        )
    bad = (y < 0) | (y >= classes)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise AuditError(
            f"{where}: label {int(y[i])} of sample {i}, expected 0 to {classes - 1}: the networks' classes"
        )
    return y.long()


@final
@dataclass(frozen=True, eq=False)
class Split:
    """fit: what perturbations are made from. choose: what decides between attacks and steps. judge: what is told."""

    fit: Source
    choose: Source
    judge: Source


def split(images: Source, shots: int, seed: int = 0, fit: int | None = None) -> Split:
    """`shots` images of each class that occurs to fit, as many to choose, the others to judge; or `fit` of any class.

    Raises AuditError: too few images; names the class.
    """
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.y), generator=chance)
    if fit is not None:
        if len(order) < 2 * fit + 1:
            raise AuditError(
                f"{images.name}: {len(order)} images, expected {2 * fit + 1} at least: {fit} to fit, {fit} to choose, "
                "and one to judge"
            )
        parts = [order[:fit], order[fit : 2 * fit], order[2 * fit :]]
    else:
        members = {int(c): order[images.y[order] == c] for c in torch.unique(images.y)}
        for c, found in members.items():
            if len(found) < 2 * shots + 1:
                raise AuditError(
                    f"{images.name}: class {c} has {len(found)} images, expected {2 * shots + 1} at least: {shots} "
                    f"shots to fit, {shots} to choose, and one to judge; fewer --shots, or --fit N of any class, "
                    "need less"
                )
        places = (slice(shots), slice(shots, 2 * shots), slice(2 * shots, None))
        parts = [torch.cat([found[place] for found in members.values()]) for place in places]
    first, second, rest = (Source(images.name, images.x[part], images.y[part]) for part in parts)
    return Split(first, second, rest)
