"""Element-wise functions of one input."""

from collections.abc import Callable

import numpy as np

from prunus.graph.convert.site import Converted, Site
from prunus.graph.ir import Activation
from prunus.sparsity.refusal import Refusal

Converter = Callable[[Site], Converted]


def plain(kind: str, **defaults: float) -> Converter:
    """A converter to an activation whose parameters are the node's attributes, in this order."""

    def convert(site: Site) -> Converted:
        params = tuple(float(site.attribute(key, default)) for key, default in defaults.items())
        return activate(site, Activation(kind, params))

    return convert


def activate(site: Site, activation: Activation, slope: str | None = None) -> Converted:
    """The node as a single activation."""
    return [site.make("activation", [site.input()], activation=activation, slope=slope)]


def clip(site: Site) -> Converted:
    """Bounds as attributes (before opset 11) or inputs; one that is missing is infinite."""
    bounds = []
    for index, key, missing in ((1, "min", -np.inf), (2, "max", np.inf)):
        if site.flows(index):
            return Refusal(f"{key} isn't constant")
        array = site.constant(index)
        number = float(array.reshape(-1)[0]) if array is not None else float(site.attribute(key, missing))
        bounds.append(missing if abs(number) >= float(np.finfo(np.float32).max) else number)
    low, high = bounds
    if low == 0 and high == np.inf:
        return activate(site, Activation("relu"))
    return activate(site, Activation("clip", (min(low, high), high)))


def prelu(site: Site) -> Converted:
    """A slope per channel, or one for all."""
    slope, x = site.constant(1), site.shape()
    if slope is None:
        return Refusal("slopes that aren't constant")
    if slope.size == 1:
        return activate(site, Activation("leaky_relu", (float(slope.reshape(-1)[0]),)))
    aligned = (1,) * (len(x) - slope.ndim) + slope.shape
    if len(x) < 2 or aligned != (1, x[1], *(1,) * (len(x) - 2)):
        return Refusal(f"slopes of shape {list(slope.shape)}, expected one per channel")
    return activate(site, Activation("prelu"), site.hold(1, slope.reshape(-1), "slope"))


def gelu(site: Site) -> Converted:
    """The exact form."""
    if site.attribute("approximate", "none") != "none":
        return Refusal("the tanh approximation")
    return activate(site, Activation("gelu"))


def swish(site: Site) -> Converted:
    """x * sigmoid(x)."""
    if float(site.attribute("alpha", 1.0)) != 1:
        return Refusal(f"alpha {site.attribute('alpha', 1.0)}, expected 1")
    return activate(site, Activation("silu"))


def identity(site: Site) -> Converted:
    """Identity, and Cast to the type that it has."""
    return [site.make("identity", [site.input()])]


def dropout(site: Site) -> Converted:
    """Nothing, as in inference."""
    if site.extra_output_used():
        return Refusal("the output mask is used")
    mode = site.constant(2)
    if site.flows(2) or (mode is not None and bool(mode.reshape(-1)[0])):
        return Refusal("training_mode")
    return identity(site)
