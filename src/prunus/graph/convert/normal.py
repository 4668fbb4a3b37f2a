"""Normalisations, soft maxima and reductions."""

import numpy as np

from prunus.graph.convert.pooling import whole_maps
from prunus.graph.convert.site import Converted, Site, reshaped
from prunus.sparsity.refusal import Refusal


def batch_normalization(site: Site) -> Converted:
    """y = x * scale + shift per channel, from constant statistics."""
    if site.attribute("training_mode", 0) or site.extra_output_used():
        return Refusal("training mode")
    if len(site.shape()) < 2:
        return Refusal("an input without channels")
    parts = [site.constant(i) for i in range(1, 5)]
    if any(part is None for part in parts):
        return Refusal("statistics that aren't constant")
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + float(site.attribute("epsilon", 1e-5)))
    shift = beta - mean * scale
    return [site.make("scale_shift", [site.input()], scale=site.keep("scale", scale), shift=site.keep("shift", shift))]


def softmax(site: Site) -> Converted:
    """Softmax and LogSoftmax; before opset 13 over all axes from `axis` on."""
    x = site.shape()
    log = site.node.op_type == "LogSoftmax"
    if site.opset >= 13:
        return [site.make("softmax", [site.input()], axis=site.axis("axis", -1, len(x)), log=log)]
    axis = site.axis("axis", 1, len(x))
    if all(n == 1 for n in x[axis + 1 :]):
        return [site.make("softmax", [site.input()], axis=axis, log=log)]
    flat = (int(np.prod(x[:axis])), int(np.prod(x[axis:])))
    before, source = reshaped(site, site.input(), flat, "before")
    soft = site.value("flat", flat)
    return [
        before,
        site.make("softmax", [source], soft, axis=1, log=log),
        site.make("reshape", [soft], suffix="after", shape=x),
    ]


def _axes(site: Site, as_input: int) -> tuple[int, ...] | Refusal:
    """The axes of a reduction: an attribute, from opset `as_input` on an input."""
    rank = len(site.shape())
    if site.opset >= as_input:
        if site.flows(1):
            return Refusal("axes that aren't constant")
        axes = site.integers(1)
    else:
        axes = site.attribute("axes", None)
    if not axes:
        if site.attribute("noop_with_empty_axes", 0):
            return ()
        axes = list(range(rank))
    return tuple(sorted({int(a) % rank for a in axes}))


def reduce_mean(site: Site) -> Converted:
    """Means over axes; over all of a map's pixels, a pooling."""
    axes = _axes(site, 18)
    if isinstance(axes, Refusal):
        return axes
    if not axes:
        return [site.make("identity", [site.input()])]
    rank = len(site.shape())
    if rank == 4 and axes == (2, 3):
        return whole_maps(site, "global_avg_pool")
    keep = bool(site.attribute("keepdims", 1))
    return [site.make("reduce_mean", [site.input()], axes=axes, keepdims=keep)]


def reduce_sum(site: Site) -> Converted:
    """Sums over axes: means, times the number of elements."""
    axes = _axes(site, 13)
    if isinstance(axes, Refusal):
        return axes
    if not axes:
        return [site.make("identity", [site.input()])]
    count = site.keep("count", np.array(np.prod([site.shape()[a] for a in axes]), np.float32))
    mean = site.value("mean", site.out_shape)
    keep = bool(site.attribute("keepdims", 1))
    return [
        site.make("reduce_mean", [site.input()], mean, "mean", axes=axes, keepdims=keep),
        site.make("binary", [mean], function="mul", constant=count, constant_first=False),
    ]


def reduce_max(site: Site) -> Converted:
    """Maxima over all of a map's pixels."""
    axes = _axes(site, 18)
    if isinstance(axes, Refusal):
        return axes
    if len(site.shape()) != 4 or axes != (2, 3):
        return Refusal(f"axes {list(axes)}, expected h and w")
    return whole_maps(site, "global_max_pool")
