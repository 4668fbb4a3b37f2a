"""Images as inputs: resized to the network's size, scaled, in its layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FeedError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@final
@dataclass(frozen=True)
class Scaling:
    """value = (pixel - mean) / std for pixels 0..255; one number, or one per channel.

    bgr: blue first.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    bgr: bool = False


def is_image(path: Path) -> bool:
    """Is this an image, by its name?"""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path, shape: tuple[int, ...], how: Scaling) -> NDArray[np.float32]:
    """float32[1, c, h, w] or [1, h, w, c], as `shape` is; the whole frame is squashed to h x w.

    Raises FeedError: not an image, or `shape` isn't that of images.
    """
    from PIL import Image, UnidentifiedImageError

    if len(shape) == 4 and shape[1] in (1, 3):
        _, channels, height, width = shape
    elif len(shape) == 4 and shape[3] in (1, 3):
        _, height, width, channels = shape
    else:
        raise FeedError(f"{path}: an image for an input of shape {list(shape)}, expected 1 or 3 channels")
    try:
        with Image.open(path) as image:
            plain = image.convert("RGB" if channels == 3 else "L")
        pixels = plain.resize((width, height), Image.Resampling.BICUBIC)
    except UnidentifiedImageError as error:
        raise FeedError(f"{path}: not an image that pillow reads") from error
    except OSError as error:
        raise FeedError(f"{path}: {error.strerror or error}") from error
    array = np.asarray(pixels, np.float64).reshape(height, width, channels)
    if how.bgr:
        array = array[:, :, ::-1]
    scaled = (array - np.array(how.mean)) / np.array(how.std)
    if shape[1] in (1, 3):
        scaled = scaled.transpose(2, 0, 1)
    return np.ascontiguousarray(scaled[None], np.float32)
