"""What a suspect may do to pictures before it answers, to throw examples off: a list that benchmarks and tests walk."""

import io
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from prunus.fingerprint.domain import TOP, Levels

Transform = Callable[[Levels], Levels]


def jpeg(levels: Levels, quality: int) -> Levels:
    """uint8[n, c, h, w], each picture through JPEG."""
    return _each(levels, lambda image: _coded(image, quality))


def resized(levels: Levels, share: float) -> Levels:
    """Each picture made smaller by a share of its sides, and back, bilinearly."""
    from PIL import Image

    def there_and_back(image: Levels) -> Levels:
        h, w = image.shape[:2]
        plain = Image.fromarray(image).resize(
            (max(int(w * share), 1), max(int(h * share), 1)), Image.Resampling.BILINEAR
        )
        return np.asarray(plain.resize((w, h), Image.Resampling.BILINEAR), np.uint8)

    return _each(levels, there_and_back)


def noisy(levels: Levels, deviation: float) -> Levels:
    """Normal noise of so many levels added, always the same."""
    noise = np.random.default_rng(0).standard_normal(levels.shape) * deviation
    return np.clip(np.rint(levels + noise), 0, TOP).astype(np.uint8)


def quantised(levels: Levels, bits: int) -> Levels:
    """Rounded to the nearest of 2 ** bits values from 0 to 255."""
    steps = 2**bits - 1
    made: Levels = np.rint(np.rint(levels / TOP * steps) / steps * TOP).astype(np.uint8)
    return made


TRANSFORMS: Final[Mapping[str, Transform]] = {
    "none": lambda x: x,
    "jpeg 90": lambda x: jpeg(x, 90),
    "jpeg 75": lambda x: jpeg(x, 75),
    "resize 0.9": lambda x: resized(x, 0.9),
    "resize 0.75": lambda x: resized(x, 0.75),
    "noise 4": lambda x: noisy(x, 4.0),
    "noise 12": lambda x: noisy(x, 12.0),
    "6 bits": lambda x: quantised(x, 6),
    "4 bits": lambda x: quantised(x, 4),
    "2 bits": lambda x: quantised(x, 2),
}


def _each(levels: Levels, change: Callable[[Levels], Levels]) -> Levels:
    """Of pictures [c, h, w] with c of 1 or 3, as [h, w] or [h, w, 3]."""
    assert levels.ndim == 4 and levels.shape[1] in (1, 3), "pictures"
    made = []
    for picture in levels:
        image = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
        changed = change(image)
        made.append(changed[None] if changed.ndim == 2 else changed.transpose(2, 0, 1))
    return np.stack(made)


def _coded(image: Levels, quality: int) -> Levels:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    stream.seek(0)
    with Image.open(stream) as found:
        return np.asarray(found, np.uint8)
