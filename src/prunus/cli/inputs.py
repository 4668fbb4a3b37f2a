"""Inputs of a run from files: arrays (npy, npz) and images."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from prunus.benchmark.feeds import Feeds, Port, dtype_of
from prunus.errors import FeedError
from prunus.pruning.images import Scaling, is_image, read_image


def read_feeds(
    texts: Sequence[str], ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], how: Scaling
) -> Feeds:
    """The inputs that FILE or NAME=FILE texts name: npy, npz (arrays by input name) or images.

    Several images without a name make a batch of the only input. `shapes` of the inputs give the
    images' size.
    Raises FeedError: a file can't be read, a name isn't an input or is given twice. BadParameter:
    a file without a name where the network has several inputs.
    """
    feeds: dict[str, list[NDArray[Any]]] = {}
    names = [port.name for port in ports]
    for text in texts:
        name, path = _split(text, names)
        if path.suffix == ".npz":
            for key, array in _read_npz(path).items():
                feeds.setdefault(key, []).append(array)
            continue
        if not name:
            if len(names) != 1:
                raise typer.BadParameter(
                    f"{text}: the network has {len(names)} inputs, expected NAME={path} with one of {', '.join(names)}"
                )
            name = names[0]
        if is_image(path):
            port = next(port for port in ports if port.name == name)
            array = read_image(path, shapes[name], how).astype(dtype_of(port))
        else:
            array = _read_npy(path)
        feeds.setdefault(name, []).append(array)
    return {name: _join(name, arrays) for name, arrays in feeds.items()}


def _split(text: str, names: Sequence[str]) -> tuple[str, Path]:
    """The input's name, "" for none, and the file of FILE or NAME=FILE."""
    for name in names:
        if text.startswith(f"{name}="):
            return name, Path(text[len(name) + 1 :])
    if "=" in text and not Path(text).exists():
        name = text.partition("=")[0]
        raise FeedError(f"{text}: no input {name!r}: the network has {', '.join(names)}")
    return "", Path(text)


def _join(name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) == 1:
        return arrays[0]
    if len({array.shape[1:] for array in arrays}) > 1 or not arrays[0].ndim:
        found = ", ".join(str(list(array.shape)) for array in arrays)
        raise FeedError(f"input {name!r}: files of shapes {found} don't make a batch")
    return np.concatenate(arrays)


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:  # numpy leaves a file that it can't read open
            array = np.load(stream, allow_pickle=False)
    except OSError as error:
        raise FeedError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FeedError(f"{path}: not an npy file, an npz file or an image") from error
    if not isinstance(array, np.ndarray):
        raise FeedError(f"{path}: holds several arrays, expected its name to end in .npz")
    return array


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise FeedError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise FeedError(f"{path}: not an npz file, or it holds objects") from error
