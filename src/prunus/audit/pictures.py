"""Perturbations and fooled images as pictures that a page can hold: PNG as data URLs."""

import base64
import io

import torch
from torch import Tensor

LEAST = 112  # pixels of a side that is shown


def is_picture(shape: tuple[int, ...]) -> bool:
    """Grey or colour, channels first?"""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


def data_url(x: Tensor, low: float, high: float, bgr: bool = False) -> str:
    """An image [c, h, w] as a URL: low is black, high white."""
    from PIL import Image

    pixels = ((x.detach() - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8)
    if bgr and pixels.shape[0] == 3:
        pixels = pixels.flip(0)
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    factor = max(1, -(-LEAST // min(image.size)))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def perturbation_url(delta: Tensor, bgr: bool = False) -> str:
    """A perturbation [c, h, w] on grey, as strong as can be shown."""
    reach = float(delta.abs().max()) or 1.0
    return data_url(delta, -reach, reach, bgr)
