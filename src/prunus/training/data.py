"""Data of a recipe as torch datasets: arrays of an npz, folders of images, or what the user's function returns."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from prunus.errors import TrainingError
from prunus.pruning.images import Scaling, is_image, read_image
from prunus.training.named import call, find_function
from prunus.training.standard import Data

Pair = tuple[Tensor, Tensor]


@final
class Samples:
    """Numbered pairs of x and y. classes: one more than the highest label, where it is known beforehand."""

    def __init__(self, source: Any, where: str, scaling: Scaling, shape: tuple[int, ...] | None) -> None:
        self._source, self.where, self._scaling, self._shape = source, where, scaling, shape
        self.classes: int | None = None
        if isinstance(source, tuple) and isinstance(source[1], np.ndarray) and source[1].dtype.kind in "iu":
            self.classes = int(source[1].max(initial=-1)) + 1

    def __len__(self) -> int:
        return len(self._source[0]) if isinstance(self._source, tuple) else len(self._source)

    def take(self, indices: Sequence[int]) -> Pair:
        """x[n, ...] and y[n, ...] of these samples.

        Raises TrainingError: they aren't tensors of numbers in pairs, or not of the shape that the recipe says.
        """
        if not isinstance(self._source, tuple):
            x, y = self._collate(indices)
        elif isinstance(self._source[0], np.ndarray):
            x, y = (torch.from_numpy(array[np.asarray(indices)]) for array in self._source)
        else:
            assert self._shape is not None
            files, labels = self._source
            images = [read_image(files[i], (1, *self._shape), self._scaling) for i in indices]
            x, y = torch.from_numpy(np.concatenate(images)), torch.from_numpy(labels[np.asarray(indices)])
        if x.dtype == torch.uint8:
            x = _scaled(x, self._scaling)
        elif x.is_floating_point():
            x = x.float()
        if self._shape is not None and tuple(x.shape[1:]) != self._shape:
            raise TrainingError(f"{self.where}: x is {list(x.shape[1:])}, expected model.input {list(self._shape)}")
        return x, y.long() if not y.is_floating_point() else y.float()

    def part(self, indices: Sequence[int]) -> "Samples":
        """Only these, in this order."""
        chosen = np.asarray(indices, np.int64)
        source: Any
        if not isinstance(self._source, tuple):
            source = torch.utils.data.Subset(self._source, chosen.tolist())
        elif isinstance(self._source[0], np.ndarray):
            source = tuple(array[chosen] for array in self._source)
        else:
            files, labels = self._source
            source = ([files[i] for i in chosen.tolist()], labels[chosen])
        made = Samples(source, self.where, self._scaling, self._shape)
        made.classes = self.classes
        return made

    def _collate(self, indices: Sequence[int]) -> Pair:
        try:
            batch = default_collate([self._source[i] for i in indices])
        except Exception as error:  # the user's code may raise anything
            raise TrainingError(f"{self.where}: a sample: {type(error).__name__}: {error}") from error
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch)):
            raise TrainingError(f"{self.where}: a sample is no pair of x and y")
        return batch[0], batch[1]


def read_data(data: Data, shape: tuple[int, ...] | None) -> tuple[Samples, Samples]:
    """Training and validation samples. shape: of one x, where the recipe says it; images are resized to it.

    Raises TrainingError: nothing there, not in pairs, other classes in one than in the other.
    """
    mean, std = (value if isinstance(value, tuple) else (value,) for value in (data.mean, data.std))
    scaling = Scaling(mean, std, data.bgr)
    sources = [
        _source(text, f"data.{key}", shape) for key, text in (("train", data.train), ("validation", data.validation))
    ]
    names = [source[2] for source in sources if len(source) == 3]
    if len(names) == 2 and names[0] != names[1]:
        other = sorted(set(names[0]) ^ set(names[1]))
        raise TrainingError(f"{data.validation}: class {other[0]} isn't in both it and {data.train}")
    train, validation = (Samples(source[0] if len(source) == 1 else source[:2], where, scaling, shape)
                         for source, where in zip(sources, (data.train, data.validation), strict=True))  # fmt: skip
    for samples in (train, validation):
        if not len(samples):
            raise TrainingError(f"{samples.where}: no samples")
    return train, validation


def read_samples(
    text: str, key: str, shape: tuple[int, ...] | None, scaling: Scaling
) -> tuple[Samples, tuple[str, ...]]:
    """Samples of an npz, a folder of images or `file.py:function`, and of a folder the names of its classes.

    Raises TrainingError: nothing there, or not in pairs.
    """
    source = _source(text, key, shape)
    samples = Samples(source[0] if len(source) == 1 else source[:2], text, scaling, shape)
    if not len(samples):
        raise TrainingError(f"{text}: no samples")
    return samples, source[2] if len(source) == 3 else ()


def _source(text: str, key: str, shape: tuple[int, ...] | None) -> tuple[Any, ...]:
    """(dataset,), (x, y) or (files, labels, class names)."""
    path = Path(text)
    if path.is_dir():
        if shape is None:
            raise TrainingError(f"{text}: a folder of images, and model.input is missing: expected it as [3, 224, 224]")
        return _folder(path)
    if path.suffix == ".npz":
        return _npz(path)
    if ":" not in text:
        raise TrainingError(f"{key}: {text}: no such folder; expected one, an npz, or file.py:function")
    found = call(find_function(text, key), {}, text, key)
    if not hasattr(found, "__getitem__") or not hasattr(found, "__len__"):
        raise TrainingError(f"{key}: {text} returned a {type(found).__name__}, expected a dataset with a length")
    return (found,)


def _npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := {"x", "y"} - set(file.files):
                raise TrainingError(f"{path}: no array {min(missing)!r}; it has {', '.join(file.files) or 'none'}")
            x, y = file["x"], file["y"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: {getattr(error, 'strerror', None) or 'not an npz'}") from error
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise TrainingError(
            f"{path}: x is {list(x.shape)} and y {list(y.shape)}, expected as many of one as of the other"
        )
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "fiu":
            raise TrainingError(f"{path}: {name} is {array.dtype}, expected numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TrainingError(f"{path}: {name} has values that aren't finite")
    if y.dtype.kind in "iu" and y.size and y.min() < 0:
        raise TrainingError(f"{path}: y has a label {y.min()}, expected 0 and above")
    x = x.astype(x.dtype.newbyteorder("="), copy=False)  # torch takes no other
    return x, y.astype(y.dtype.newbyteorder("="), copy=False) if y.dtype.kind == "f" else y.astype(np.int64)


def _folder(path: Path) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    names = tuple(sorted(item.name for item in path.iterdir() if item.is_dir()))
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(names):
        found = sorted(file for file in (path / name).rglob("*") if is_image(file))
        if not found:
            raise TrainingError(f"{path / name}: no images, expected some of this class")
        files += found
        labels += [label] * len(found)
    if not files:
        raise TrainingError(f"{path}: no folders in it, expected one per class, with images")
    return files, np.array(labels, np.int64), names


def _scaled(x: Tensor, how: Scaling) -> Tensor:
    """Pixels uint8[n, c, h, w] as the network takes them."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    mean, std = (torch.tensor(values, dtype=torch.float32).reshape(shape) for values in (how.mean, how.std))
    if how.bgr and x.ndim > 2 and x.shape[1] == 3:
        x = x.flip(1)
    return (x.float() - mean) / std
