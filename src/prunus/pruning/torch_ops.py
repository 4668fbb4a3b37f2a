"""Each operator of the graph in torch, differentiable; beside `graph/evaluate.py`, which says the same in numpy.

A function gets the node, the graph, `weight` (name of a constant to its tensor), `table` (an array to a tensor that
isn't learned) and the inputs. All decisions are taken from the graph, never from the inputs, so that what it does can
be recorded once. Sizes of axis 0 aren't used: it may be the batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from prunus.graph.ir import Format, Graph, Node
from prunus.pruning.torch_recurrent import recurrent
from prunus.runtime.lower.window import source_table


@dataclass(frozen=True)
class Context:
    """What a node's function may ask for."""

    graph: Graph
    weight: Callable[[str], Tensor]
    table: Callable[[NDArray[Any]], Tensor]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.values[name].shape


Function = Callable[..., Any]


def rounded(x: Tensor, form: Format) -> Tensor:
    """The values that packed channels can hold, nearest to those given; the gradient is that of the identity.
    Source: Bengio et al., 2013, arXiv:1308.3432 (the straight-through estimator)."""
    still = x.detach()
    if form.pack == 2:
        near = still.to(torch.bfloat16).to(torch.float32)
    else:
        steps = torch.clamp(torch.round(still / float(np.float32(form.scale)) + form.zero), 0, 255)
        near = (steps - form.zero) * float(np.float32(form.scale))
    return near + (x - still)


ACTIVATION: Final[Mapping[str, Callable[..., Tensor]]] = {
    "relu": torch.relu,
    "clip": lambda a, low, high: torch.clamp(a, low, high),
    "leaky_relu": lambda a, alpha: F.leaky_relu(a, alpha),
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda a, alpha, beta: torch.clamp(alpha * a + beta, 0, 1),
    "hard_swish": F.hardswish,
    "silu": F.silu,
    "tanh": torch.tanh,
    "elu": lambda a, alpha: F.elu(a, alpha),
    "softplus": F.softplus,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "neg": torch.neg,
    "erf": torch.erf,
    "gelu": F.gelu,
}
BINARY: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "min": torch.minimum,
    "max": torch.maximum, "pow": torch.pow,
}  # fmt: skip


def _activate(node: Node, c: Context, a: Tensor, axis: int = 1) -> Tensor:
    activation, slope = node.attrs["activation"], node.attrs["slope"]
    if activation is None:
        return a
    if activation.kind == "prelu":
        shape = [1] * len(c.shape(node.outputs[0]))
        shape[axis] = -1
        return torch.where(a < 0, a * c.weight(slope).reshape(shape), a)
    return ACTIVATION[activation.kind](a, *activation.params)


def _epilogue(node: Node, c: Context, a: Tensor, rest: tuple[Tensor, ...], axis: int = 1) -> Tensor:
    for other in rest:
        a = a + other
    return _activate(node, c, a, axis)


def _bias(node: Node, c: Context) -> Tensor | None:
    return None if node.attrs["bias"] is None else c.weight(node.attrs["bias"])


def _outside(pads: tuple[int, int, int, int]) -> list[int]:
    """(top, left, bottom, right) in the order of F.pad."""
    top, left, bottom, right = pads
    return [left, right, top, bottom]


def _alike(pads: tuple[int, int, int, int]) -> bool:
    """The same on both sides, so that an operator's own padding will do."""
    return pads[:2] == pads[2:] and min(pads) >= 0


def _conv(node: Node, c: Context, x: Tensor, *rest: Tensor) -> Tensor:
    attrs, pads = node.attrs, tuple(node.attrs["pads"])
    if not _alike(pads):
        x, pads = F.pad(x, _outside(pads)), (0, 0, 0, 0)
    y = F.conv2d(
        x, c.weight(attrs["weight"]), _bias(node, c), tuple(attrs["strides"]), pads[:2], tuple(attrs["dilations"]),
        attrs["group"],
    )  # fmt: skip
    return _epilogue(node, c, y, rest)


def _conv_transpose(node: Node, c: Context, x: Tensor, *rest: Tensor) -> Tensor:
    attrs = node.attrs
    top, left = attrs["pads"][:2]
    size, kernel = c.shape(node.inputs[0])[2:], c.graph.constants[attrs["weight"]].shape[2:]
    full = [
        (i - 1) * s + (k - 1) * d + 1
        for i, s, k, d in zip(size, attrs["strides"], kernel, attrs["dilations"], strict=True)
    ]
    oh, ow = c.shape(node.outputs[0])[2:]
    y = F.conv_transpose2d(
        x, c.weight(attrs["weight"]), None, tuple(attrs["strides"]), groups=attrs["group"],
        dilation=tuple(attrs["dilations"]),
    )  # fmt: skip
    y = F.pad(y, [-left, left + ow - full[1], -top, top + oh - full[0]])  # below 0 cuts
    bias = _bias(node, c)
    return _epilogue(node, c, y if bias is None else y + bias.reshape(1, -1, 1, 1), rest)


def _gemm(node: Node, c: Context, x: Tensor, *rest: Tensor) -> Tensor:
    weight = node.attrs["weight"]
    if c.shape(node.inputs[0])[-1] != c.graph.constants[weight].shape[1]:
        x = x.flatten(1)
    return _epilogue(node, c, F.linear(x, c.weight(weight), _bias(node, c)), rest, axis=-1)


def _recurrent(node: Node, c: Context, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    a, given = node.attrs, dict(zip(node.attrs["given"], rest, strict=True))

    def constant(key: str) -> Tensor | None:
        return None if a[key] is None else c.weight(a[key])

    lengths = given.get("lengths")
    if a["lengths"] is not None:
        lengths = c.table(np.array(a["lengths"], np.int64))
    made = recurrent(
        x, c.weight(a["weight"]), c.weight(a["recurrence"]), constant("bias"), constant("recurrence_bias"),
        given["h"] if "h" in given else constant("initial_h"), given["c"] if "c" in given else constant("initial_c"),
        lengths, a["kind"], [(act.kind, tuple(act.params)) for act in a["activations"]], a["linear_before_reset"],
        a["reverse"], a["clip"], a["input_forget"],
    )  # fmt: skip
    return tuple(made[i] for i in range(len(node.outputs)))


def _padded(node: Node, x: Tensor, value: float) -> tuple[Tensor, tuple[int, int]]:
    """The input, padded where the pooling can't do it by itself, and the padding that is left to it."""
    pads = tuple(node.attrs["pads"])
    if _alike(pads) and all(2 * p <= k for p, k in zip(pads, node.attrs["kernel"], strict=False)):
        return x, (pads[0], pads[1])
    return F.pad(x, _outside(pads), value=value), (0, 0)


def _max_pool(node: Node, c: Context, x: Tensor) -> Tensor:
    attrs = node.attrs
    oh, ow = c.shape(node.outputs[0])[2:]
    x, padding = _padded(node, x, -np.inf)
    y = F.max_pool2d(x, tuple(attrs["kernel"]), tuple(attrs["strides"]), padding, tuple(attrs["dilations"]))
    return y[:, :, :oh, :ow]


def _avg_pool(node: Node, c: Context, x: Tensor) -> Tensor:
    attrs = node.attrs
    kernel, strides = tuple(attrs["kernel"]), tuple(attrs["strides"])
    oh, ow = c.shape(node.outputs[0])[2:]
    counted = bool(attrs["count_include_pad"])
    x, padding = _padded(node, x, 0.0)
    if padding == (0, 0) and any(attrs["pads"]) and not counted:
        ones = F.pad(torch.ones(1, 1, *c.shape(node.inputs[0])[2:]), _outside(attrs["pads"]))
        counts = F.avg_pool2d(ones, kernel, strides, divisor_override=1)[:, :, :oh, :ow]
        return F.avg_pool2d(x, kernel, strides, divisor_override=1)[:, :, :oh, :ow] / c.table(counts.numpy())
    return F.avg_pool2d(x, kernel, strides, padding, count_include_pad=counted)[:, :, :oh, :ow]


def _binary(node: Node, c: Context, *inputs: Tensor) -> Tensor:
    sides = list(inputs)
    if node.attrs["constant"] is not None:
        sides.insert(0 if node.attrs["constant_first"] else 1, c.weight(node.attrs["constant"]))
    return BINARY[node.attrs["function"]](*sides)


def _softmax(node: Node, c: Context, x: Tensor) -> Tensor:
    return (F.log_softmax if node.attrs["log"] else F.softmax)(x, node.attrs["axis"])


def _resize(node: Node, c: Context, x: Tensor) -> Tensor:
    attrs = node.attrs
    for axis in (2, 3):
        size, out = (c.shape(name)[axis] for name in (node.inputs[0], node.outputs[0]))
        low, high, weight = source_table(
            size, out, attrs["scales"][axis - 2], attrs["mode"], attrs["coordinates"], attrs["nearest_mode"]
        )
        first = torch.index_select(x, axis, c.table(low))
        if weight.any():
            shape = [1] * 4
            shape[axis] = -1
            blend = c.table(weight.reshape(shape))
            x = first * (1 - blend) + torch.index_select(x, axis, c.table(high)) * blend
        else:
            x = first
    return x


def _slice(node: Node, c: Context, x: Tensor) -> Tensor:
    bounds = zip(
        node.attrs["starts"], node.attrs["ends"], node.attrs["steps"], c.shape(node.inputs[0]), strict=True
    )  # fmt: skip
    return x[tuple(slice(None) if (a, s) == (0, 1) and b == n else slice(a, b, s) for a, b, s, n in bounds)]


def _pad(node: Node, c: Context, x: Tensor) -> Tensor:
    pads = node.attrs["pads"]
    if node.attrs["mode"] == "constant":
        return F.pad(x, [n for pair in reversed(pads) for n in pair], value=float(node.attrs["value"]))
    for axis, pair in enumerate(pads):
        if any(pair):
            places = np.pad(np.arange(c.shape(node.inputs[0])[axis]), pair, mode=node.attrs["mode"])
            x = torch.index_select(x, axis, c.table(places))
    return x


def _scale_shift(node: Node, c: Context, x: Tensor) -> Tensor:
    shape = [1, -1] + [1] * (len(c.shape(node.inputs[0])) - 2)
    return x * c.weight(node.attrs["scale"]).reshape(shape) + c.weight(node.attrs["shift"]).reshape(shape)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "gemm": _gemm,
    "recurrent": _recurrent,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda n, c, x: x.mean((2, 3), keepdim=True),
    "global_max_pool": lambda n, c, x: torch.amax(x, (2, 3), keepdim=True),
    "activation": _activate,
    "binary": _binary,
    "concat": lambda n, c, *xs: torch.cat(xs, n.attrs["axis"]),
    "slice": _slice,
    "split": lambda n, c, x: torch.split(x, list(n.attrs["sizes"]), n.attrs["axis"]),
    "pad": _pad,
    "reshape": lambda n, c, x: x.reshape((-1, *n.attrs["shape"][1:]) if n.attrs["shape"] else ()),
    "transpose": lambda n, c, x: x.permute(tuple(n.attrs["perm"])),
    "softmax": _softmax,
    "resize": _resize,
    "reduce_mean": lambda n, c, x: (
        x.mean(tuple(n.attrs["axes"]), keepdim=bool(n.attrs["keepdims"])) if n.attrs["axes"] else x
    ),
    "scale_shift": _scale_shift,
    "identity": lambda n, c, x: x,
    "pack": lambda n, c, x: x,  # the rounding is that of the value's format
    "unpack": lambda n, c, x: x,
}
# Operators of the graph that have no gradient here, and why.
REFUSED: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime computes it, which has no gradients",
    "fold": "only graphs lowered to another precision have it",
}
