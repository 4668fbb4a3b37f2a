"""Kernel, strides, dilations and padding of a window operator as 2-D attributes, automatic padding resolved."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.graph.convert.site import Site
from prunus.graph.ir import Shape
from prunus.sparsity.refusal import Refusal

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Attributes of a window on a map of (h, w) pixels; pads are (top, left, bottom, right)."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: Pads


def plane_shape(shape: Shape) -> Shape:
    """[n, c, w] as [n, c, 1, w]; [n, c, h, w] as it is."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def window(site: Site, kernel: Sequence[int]) -> Window | Refusal:
    """The window of a Conv or pooling node on an input of rank 3 or 4."""
    x, out = site.shape(), site.out_shape
    spatial = len(x) - 2
    if spatial not in (1, 2):
        return Refusal(f"{spatial} spatial dimensions, expected 1 or 2")
    strides = [int(n) for n in site.attribute("strides", [1] * spatial)]
    dilations = [int(n) for n in site.attribute("dilations", [1] * spatial)]
    pads = [int(n) for n in site.attribute("pads", [0] * 2 * spatial)]
    auto = site.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * spatial
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, s, k, d in zip(x[2:], strides, kernel, dilations, strict=True)
        ]
        small = [t // 2 for t in total]
        large = [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    if min(pads) < 0:
        return Refusal(f"negative padding {pads}")
    if site.attribute("ceil_mode", 0):
        for axis in range(spatial):
            reach = (out[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            extra = reach - (x[2 + axis] + pads[axis] + pads[spatial + axis])
            if extra > 0 and site.attribute("count_include_pad", 0):
                return Refusal("ceil_mode with padding that counts")
            pads[spatial + axis] += max(extra, 0)
    return Window(
        pair(kernel, 1), pair(strides, 1), pair(dilations, 1), (*pair(pads[:spatial], 0), *pair(pads[spatial:], 0))
    )


def pair(numbers: Sequence[int], lead: int) -> Pair:
    """(h, w) of one number for w or two."""
    return (lead, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))
