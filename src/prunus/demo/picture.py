"""A mask as a picture: block characters for a terminal, a PNG for a browser."""

import io

import numpy as np
from numpy.typing import NDArray

# Characters of four quarters; bits: 1 upper left, 2 upper right, 4 lower left, 8 lower right.
QUARTERS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"
KEPT, GONE, LINE = np.array([[24, 60, 110], [236, 240, 244], [214, 108, 60]], np.uint8)
Bools = NDArray[np.bool_]


def as_matrix(mask: Bools) -> Bools:
    """bool[o, i * kh * kw] of bool[o, i, kh, kw]."""
    return mask.reshape(len(mask), -1)


def block_text(mask: Bools, rows: int = 48, columns: int = 128) -> str:
    """The upper left corner of a mask in characters of 2 x 2 weights; dark where one is kept."""
    matrix = as_matrix(mask)[:rows, :columns]
    height, width = matrix.shape
    padded = np.zeros((height + height % 2, width + width % 2), np.int64)
    padded[:height, :width] = matrix
    upper, lower = padded[::2], padded[1::2]
    code = upper[:, ::2] + 2 * upper[:, 1::2] + 4 * lower[:, ::2] + 8 * lower[:, 1::2]
    return "\n".join("".join(QUARTERS[c] for c in row).rstrip() for row in code)


def png_bytes(mask: Bools, block: tuple[int, int] | None = None, scale: int = 3) -> bytes:
    """A PNG of the whole mask, `scale` pixels a weight, with lines between blocks of rows x
    columns.
    """
    from PIL import Image

    matrix = as_matrix(mask)
    pixels = np.where(matrix[:, :, None], KEPT, GONE)
    pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    if block is not None:
        pixels[:: block[0] * scale] = LINE
        pixels[:, :: block[1] * scale] = LINE
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG", optimize=True)
    return stream.getvalue()
