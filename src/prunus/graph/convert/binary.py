"""Element-wise functions of two or more inputs, with broadcasting."""

from collections.abc import Callable

import numpy as np

from prunus.graph.convert.site import Converted, Site
from prunus.graph.ir import Node
from prunus.sparsity.refusal import Refusal


def binary(function: str) -> Callable[[Site], Converted]:
    """A converter of a node that folds its inputs from the left: Add, and Sum of any number."""

    def convert(site: Site) -> Converted:
        count = len(site.node.inputs)
        order = sorted(range(count), key=lambda i: site.is_constant(i)) if count > 2 else list(range(count))
        if count == 1:
            return [site.make("identity", [site.input()])]
        nodes: list[Node] = []
        left = site.input(order[0])
        shape = site.shape(order[0])
        for step, index in enumerate(order[1:], 1):
            shape = np.broadcast_shapes(shape, site.shape(index))
            last = step == count - 1
            out = site.output if last else site.value(f"part{step}", shape)
            constant, first, inputs = None, False, [left, site.input(index)]
            if site.is_constant(index):
                constant, inputs = site.hold(index), [left]
            elif step == 1 and site.is_constant(order[0]):
                constant, first, inputs = site.hold(order[0]), True, [site.input(index)]
            nodes.append(
                site.make(
                    "binary", inputs, out, "" if last else f"part{step}", function=function, constant=constant,
                    constant_first=first,
                )  # fmt: skip
            )
            left = out
        return nodes

    return convert


def power(site: Site) -> Converted:
    """Pow; a square is a product."""
    exponent = site.constant(1)
    if exponent is not None and exponent.size == 1 and exponent.reshape(-1)[0] == 2 and exponent.ndim <= len(site.shape()):
        return [site.make("binary", [site.input()] * 2, function="mul", constant=None, constant_first=False)]
    return binary("pow")(site)


def reciprocal(site: Site) -> Converted:
    """1 / x."""
    one = site.keep("one", np.ones((), np.float32))
    return [site.make("binary", [site.input()], function="div", constant=one, constant_first=True)]


def expand(site: Site) -> Converted:
    """Broadcasting to a larger shape: a product with ones along the axes that grow."""
    x, out = site.shape(), site.out_shape
    if x == out:
        return [site.make("identity", [site.input()])]
    aligned = (1,) * (len(out) - len(x)) + x
    ones = np.ones([1 if a == n else n for a, n in zip(aligned, out, strict=True)], np.float32)
    if ones.size > 1 << 20:
        return Refusal(f"expands to {list(out)}")
    return [site.make("binary", [site.input()], function="mul", constant=site.keep("ones", ones), constant_first=False)]
