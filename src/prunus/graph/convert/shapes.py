"""Operators that move elements: reshapes, transposes, concatenation, slices, padding."""

import numpy as np

from prunus.graph.convert.site import Converted, Site, reshaped
from prunus.sparsity.refusal import Refusal


def reshape(site: Site) -> Converted:
    """Reshape, Flatten, Squeeze, Unsqueeze: all the same once the output's shape is known."""
    return [site.make("reshape", [site.input()], shape=site.out_shape)]


def transpose(site: Site) -> Converted:
    """Axes in another order; by default reversed."""
    rank = len(site.shape())
    perm = [int(n) for n in site.attribute("perm", range(rank)[::-1])]
    return [site.make("transpose", [site.input()], perm=tuple(perm))]


def concat(site: Site) -> Converted:
    """Flowing inputs along an axis."""
    count = len(site.node.inputs)
    if any(site.is_constant(i) for i in range(count)):
        return Refusal("an input that is constant")
    if count == 1:
        return [site.make("identity", [site.input()])]
    axis = site.axis("axis", 0, len(site.out_shape))
    return [site.make("concat", [site.input(i) for i in range(count)], axis=axis)]


def split(site: Site) -> Converted:
    """Pieces along an axis, of the sizes that inference found."""
    rank = len(site.shape())
    axis = site.axis("axis", 0, rank)
    sizes = [value.shape[axis] for value in site.node.outputs if value.shape is not None]
    if any(not isinstance(n, int) for n in sizes) or sum(sizes) != site.shape()[axis]:
        return Refusal("pieces of unknown sizes")
    node = site.make("split", [site.input()], axis=axis, sizes=tuple(int(n) for n in sizes))
    outputs = tuple(value.name or f"{site.name}.unused{i}" for i, value in enumerate(site.node.outputs))
    return [type(node)(node.op, node.name, node.inputs, outputs, node.attrs)]


def slice_(site: Site) -> Converted:
    """Boxes with positive steps."""
    x = site.shape()
    rank = len(x)
    axes: list[int] | None
    steps: list[int] | None = None
    if site.opset < 10:
        starts, ends, axes = (site.attribute(key, None) for key in ("starts", "ends", "axes"))
    else:
        if any(site.flows(i) for i in range(1, 5)):
            return Refusal("bounds that aren't constant")
        starts, ends, axes, steps = (site.integers(i) for i in range(1, 5))
    assert starts is not None and ends is not None, f"{site.name}: no bounds"
    axes = [a % rank for a in axes] if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    if min(steps, default=1) < 1:
        return Refusal(f"steps {steps}")
    box = [(0, n, 1) for n in x]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        box[axis] = slice(start, end, step).indices(x[axis])
    lows, highs, by = zip(*box, strict=True)
    return [site.make("slice", [site.input()], starts=lows, ends=highs, steps=by)]


def gather(site: Site) -> Converted:
    """One constant position along an axis: a slice."""
    index, x = site.constant(1), site.shape()
    if index is None or index.size != 1:
        return Refusal("indices that aren't a single constant")
    axis = site.axis("axis", 0, len(x))
    at = int(index.reshape(-1)[0]) % x[axis]
    starts = tuple(at if i == axis else 0 for i in range(len(x)))
    ends = tuple(at + 1 if i == axis else n for i, n in enumerate(x))
    piece = site.value("piece", [1 if i == axis else n for i, n in enumerate(x)])
    return [
        site.make("slice", [site.input()], piece, starts=starts, ends=ends, steps=(1,) * len(x)),
        site.make("reshape", [piece], suffix="reshape", shape=site.out_shape),
    ]


def pad(site: Site) -> Converted:
    """Constant padding of any axis; mirrored or repeated edges of the last two axes of four."""
    x = site.shape()
    rank = len(x)
    mode = site.attribute("mode", "constant")
    if site.opset < 11:
        amounts, value = site.attribute("pads", None), float(site.attribute("value", 0.0))
        axes = list(range(rank))
    else:
        if any(site.flows(i) for i in range(1, 4)):
            return Refusal("amounts that aren't constant")
        amounts, fill = site.integers(1), site.constant(2)
        value = 0.0 if fill is None or fill.size == 0 else float(fill.reshape(-1)[0])
        axes = [a % rank for a in site.integers(3) or range(rank)]
    assert amounts is not None, f"{site.name}: no amounts"
    pads = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pads[axis] = (int(amounts[i]), int(amounts[i + len(axes)]))
    if min(min(p) for p in pads) < 0:
        return Refusal(f"negative padding {pads}")
    if mode not in ("constant", "reflect", "edge"):
        return Refusal(f"mode {mode}")
    if mode != "constant":
        if rank != 4 or any(p != (0, 0) for p in pads[:2]):
            return Refusal(f"mode {mode} of other axes than h and w")
        if mode == "reflect" and any(max(p) >= n for p, n in zip(pads, x, strict=True) if max(p)):
            return Refusal("reflections of reflections")
    return [site.make("pad", [site.input()], pads=tuple(pads), mode=mode, value=value)]


def depth_to_space(site: Site) -> Converted:
    """Blocks of channels become pixels."""
    n, c, h, w = site.shape()
    b = int(site.attribute("blocksize", 1))
    if site.attribute("mode", "DCR") == "DCR":
        parts, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    return _shuffle(site, parts, perm)


def space_to_depth(site: Site) -> Converted:
    """Blocks of pixels become channels."""
    n, c, h, w = site.shape()
    b = int(site.attribute("blocksize", 1))
    return _shuffle(site, (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4))


def _shuffle(site: Site, parts: tuple[int, ...], perm: tuple[int, ...]) -> Converted:
    before, source = reshaped(site, site.input(), parts, "parts")
    turned = site.value("turned", np.array(parts)[list(perm)])
    return [
        before,
        site.make("transpose", [source], turned, perm=perm),
        site.make("reshape", [turned], suffix="after", shape=site.out_shape),
    ]
