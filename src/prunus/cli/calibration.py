"""Calibration data from the command line: arrays or a folder of images, in batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.benchmark.feeds import Port
from prunus.cli.inputs import read_feeds
from prunus.errors import CalibrationError
from prunus.pruning.images import Scaling, is_image, read_image

MOST_IMAGES = 128
BATCH = 8  # images at a time


def read_calibration(
    path: Path,
    ports: Sequence[Port],
    shapes: Mapping[str, tuple[int, ...]],
    how: Scaling,
    most: int = MOST_IMAGES,
) -> list[dict[str, NDArray[Any]]]:
    """Feeds of an npz (arrays by input name, batch first; others, as labels, are passed over), an npy, an image, or a
    folder of images, of which at most `most` are taken, evenly.

    Raises CalibrationError: nothing there, or not for this network. FeedError: a file can't be read.
    """
    names = [port.name for port in ports]
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if is_image(file)]
        if not files or len(names) != 1:
            raise CalibrationError(
                f"{path}: {len(files)} images for {len(names)} inputs, expected some for a network with one"
            )
        taken = files[:: -(-len(files) // most)]
        arrays = [read_image(file, shapes[names[0]], how) for file in taken]
        return [{names[0]: np.concatenate(arrays[i : i + BATCH])} for i in range(0, len(arrays), BATCH)]
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder")
    feeds = read_feeds([str(path)], ports, shapes, how)
    if missing := [name for name in names if name not in feeds]:
        raise CalibrationError(f"{path}: no array {missing[0]!r}; it has {', '.join(sorted(feeds)) or 'none'}")
    n = min(len(feeds[name]) for name in names)
    return [{name: feeds[name][i : i + BATCH] for name in names} for i in range(0, n, BATCH)]


def calibration_of(
    model: Path, path: Path, shapes: Mapping[str, tuple[int, ...]], how: Scaling, most: int = MOST_IMAGES
) -> list[dict[str, NDArray[Any]]]:
    """Batches for the inputs of an ONNX file. Raises as `read_calibration`."""
    from prunus.benchmark.feeds import onnx_inputs, resolve_shapes

    ports = onnx_inputs(model)
    return read_calibration(path, ports, resolve_shapes(ports, dict(shapes), model=str(model)), how, most)
