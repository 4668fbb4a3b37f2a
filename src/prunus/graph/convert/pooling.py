"""Pooling over windows and over whole maps."""

from typing import Any

import numpy as np

from prunus.graph.convert.site import Converted, Site, reshaped
from prunus.graph.convert.windows import plane_shape, window
from prunus.graph.ir import Shape
from prunus.sparsity.refusal import Refusal


def max_pool(site: Site) -> Converted:
    """MaxPool without indices."""
    if site.extra_output_used():
        return Refusal("the output Indices is used")
    found = window(site, site.attribute("kernel_shape", []))
    if isinstance(found, Refusal):
        return found
    attrs = {"kernel": found.kernel, "strides": found.strides, "pads": found.pads, "dilations": found.dilations}
    return _between(site, "max_pool", plane_shape(site.shape()), plane_shape(site.out_shape), attrs)


def average_pool(site: Site) -> Converted:
    """AveragePool without dilations."""
    found = window(site, site.attribute("kernel_shape", []))
    if isinstance(found, Refusal):
        return found
    if found.dilations != (1, 1):
        return Refusal(f"dilations {list(found.dilations)}")
    attrs = {
        "kernel": found.kernel, "strides": found.strides, "pads": found.pads,
        "count_include_pad": bool(site.attribute("count_include_pad", 0)),
    }  # fmt: skip
    return _between(site, "avg_pool", plane_shape(site.shape()), plane_shape(site.out_shape), attrs)


def global_average_pool(site: Site) -> Converted:
    """Mean of each channel."""
    return whole_maps(site, "global_avg_pool")


def global_max_pool(site: Site) -> Converted:
    """Maximum of each channel."""
    return whole_maps(site, "global_max_pool")


def whole_maps(site: Site, op: str) -> Converted:
    """A pooling of everything but batch and channel."""
    x = site.shape()
    if len(x) < 3:
        return Refusal(f"an input of {len(x)} dimensions")
    flat = x if len(x) == 4 else (*x[:2], 1, int(np.prod(x[2:])))
    return _between(site, op, flat, (*x[:2], 1, 1), {})


def _between(site: Site, op: str, x: Shape, out: Shape, attrs: dict[str, Any]) -> Converted:
    """The node, between reshapes where its input or output isn't of these shapes."""
    nodes, source = [], site.input()
    if x != site.shape():
        before, source = reshaped(site, source, x, "before")
        nodes.append(before)
    if out == site.out_shape:
        return [*nodes, site.make(op, [source], **attrs)]
    flat = site.value("plane", out)
    after = site.make("reshape", [flat], suffix="after", shape=site.out_shape)
    return [*nodes, site.make(op, [source], flat, **attrs), after]
