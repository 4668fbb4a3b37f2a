"""Conv and ConvTranspose."""

from prunus.graph.convert.site import Converted, Site, reshaped
from prunus.graph.convert.windows import Window, pair, plane_shape, window
from prunus.graph.ir import Node
from prunus.sparsity.refusal import Refusal


def conv(site: Site) -> Converted:
    """Convolution in one or two dimensions by a constant weight."""
    weight = site.constant(1)
    if weight is None:
        return Refusal("weights that aren't constant")
    if site.flows(2):
        return Refusal("a bias that isn't constant")
    found = window(site, weight.shape[2:])
    if isinstance(found, Refusal):
        return found
    return _in_two_dimensions(site, "conv", found, {})


def conv_transpose(site: Site) -> Converted:
    """Transposed convolution in one or two dimensions by a constant weight."""
    weight, x = site.constant(1), site.shape()
    if weight is None:
        return Refusal("weights that aren't constant")
    if site.flows(2):
        return Refusal("a bias that isn't constant")
    spatial = len(x) - 2
    if spatial not in (1, 2):
        return Refusal(f"{spatial} spatial dimensions, expected 1 or 2")
    kernel, ones = weight.shape[2:], [1] * spatial
    strides, dilations = site.attribute("strides", ones), site.attribute("dilations", ones)
    extra = site.attribute("output_padding", [0] * spatial)
    pads = site.attribute("pads", [0] * 2 * spatial)
    auto = site.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * spatial
    elif auto != "NOTSET" or "output_shape" in site.node.attributes:
        total = [
            s * (n - 1) + p + (k - 1) * d + 1 - o
            for n, s, p, k, d, o in zip(x[2:], strides, extra, kernel, dilations, site.out_shape[2:], strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    if min(pads) < 0:
        return Refusal(f"negative padding {pads}")
    found = Window(
        pair(kernel, 1), pair(strides, 1), pair(dilations, 1), (*pair(pads[:spatial], 0), *pair(pads[spatial:], 0))
    )
    return _in_two_dimensions(site, "conv_transpose", found, {"output_pads": pair(extra, 0)})


def _in_two_dimensions(site: Site, op: str, found: Window, more: dict[str, object]) -> list[Node]:
    """The node, between reshapes where the input has one spatial dimension."""
    weight, x = site.constant(1), site.shape()
    assert weight is not None
    if len(x) == 4:
        kernel = site.hold(1)
    else:
        kernel = site.hold(1, weight.reshape(plane_shape(weight.shape)), "plane")
    attrs = {
        "weight": kernel, "strides": found.strides, "pads": found.pads, "dilations": found.dilations,
        "group": int(site.attribute("group", 1)), "bias": site.hold(2) if site.has(2) else None,
        "activation": None, "slope": None, **more,
    }  # fmt: skip
    if len(x) == 4:
        return [site.make(op, [site.input()], **attrs)]
    before, source = reshaped(site, site.input(), plane_shape(x), "before")
    flat = site.value("plane", plane_shape(site.out_shape))
    after = site.make("reshape", [flat], suffix="after", shape=site.out_shape)
    return [before, site.make(op, [source], flat, **attrs), after]
