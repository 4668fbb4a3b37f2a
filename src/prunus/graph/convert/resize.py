"""Resize and its predecessor Upsample."""

import numpy as np

from prunus.graph.convert.site import Converted, Site, reshaped
from prunus.graph.convert.windows import plane_shape
from prunus.sparsity.refusal import Refusal

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def upsample(site: Site) -> Converted:
    """Upsample (opset 9) and Resize of opset 10: corners at 0, rounded down."""
    scales = site.constant(1)
    if scales is None:
        return Refusal("scales that aren't constant")
    if site.attribute("mode", "nearest") == "nearest" and np.any((scales < 1) & (1 / scales % 1 != 0)):
        return Refusal("shrinking by a fraction, whose rounding isn't defined")
    return _resize(site, [float(s) for s in scales], "asymmetric", "floor")


def resize(site: Site) -> Converted:
    """Resize from opset 11 on, of height and width, nearest or linear."""
    if site.opset < 11:
        return upsample(site)
    x, out = site.shape(), site.out_shape
    if site.flows(2) or site.flows(3):
        return Refusal("sizes that aren't constant")
    coordinates = site.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = site.attribute("nearest_mode", "round_prefer_floor")
    if coordinates not in COORDINATES or nearest not in NEAREST:
        return Refusal(f"coordinates {coordinates}, rounding {nearest}")
    if site.attribute("antialias", 0) or site.attribute("exclude_outside", 0):
        return Refusal("antialias or exclude_outside")
    axes = [int(a) % len(x) for a in site.attribute("axes", range(len(x)))]
    given, sizes = site.constant(2), site.constant(3)
    scales = [1.0] * len(x)
    if given is not None and given.size:
        for axis, scale in zip(axes, given, strict=True):
            scales[axis] = float(scale)
    elif sizes is not None:
        for axis, size in zip(axes, sizes, strict=True):
            scales[axis] = int(size) / x[axis]
        if site.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            # the one ratio of all axes, from the side that decided it
            policy = site.attribute("keep_aspect_ratio_policy", "stretch")
            ratios = [int(size) / x[axis] for axis, size in zip(axes, sizes, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            for axis in axes:
                scales[axis] = ratio
    if any(o != n for o, n in zip(out[:2], x[:2], strict=True)):
        return Refusal("resizes batch or channels")
    return _resize(site, scales, coordinates, nearest)


def _resize(site: Site, scales: list[float], coordinates: str, nearest: str) -> Converted:
    x, out = site.shape(), site.out_shape
    mode = site.attribute("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return Refusal(f"mode {mode}")
    if len(x) not in (3, 4) or any(s != 1 for s in scales[:2]):
        return Refusal(f"scales {scales} of {len(x)} dimensions, expected height and width")
    across = (scales[2], scales[3]) if len(x) == 4 else (1.0, scales[2])
    attrs = {"mode": mode, "coordinates": coordinates, "nearest_mode": nearest, "scales": across}
    if len(x) == 4:
        return [site.make("resize", [site.input()], **attrs)]
    before, source = reshaped(site, site.input(), plane_shape(x), "before")
    flat = site.value("plane", plane_shape(out))
    after = site.make("reshape", [flat], suffix="after", shape=out)
    return [before, site.make("resize", [source], flat, **attrs), after]
