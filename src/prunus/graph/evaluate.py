"""The graph's meaning in numpy: slow, plain, and the oracle for passes and kernels."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.graph.ir import Activation, Format, Graph, Node
from prunus.runtime.lower.window import source_table
from prunus.sparsity.words import bf16_bits, from_bf16

Array = NDArray[Any]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def evaluate(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph by name, float64 inside layers, float32 between nodes. Partitions need onnxruntime."""
    values: dict[str, Array] = dict(feeds)
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        results = FUNCTIONS[node.op](node, graph, *inputs)
        results = results if isinstance(results, list) else [results]
        for name, result in zip(node.outputs, results, strict=True):
            values[name] = np.asarray(rounded(result, graph.values[name].format), graph.values[name].dtype)
    return values


def rounded(a: Array, form: Format | None) -> Array:
    """The values that packed channels can hold, nearest to those given."""
    if form is None:
        return a
    if form.pack == 2:
        return from_bf16(bf16_bits(np.asarray(a, np.float32)))
    scale = np.float32(form.scale)
    return (np.clip(np.rint(a / scale + form.zero), 0, 255) - form.zero) * scale


def _activate(a: Array, node: Node, graph: Graph, axis: int = 1) -> Array:
    activation, slope = node.attrs["activation"], node.attrs["slope"]
    if activation is None:
        return a
    p = activation.params
    if activation.kind == "prelu":
        shape = [1] * a.ndim
        shape[axis] = -1
        return np.where(a < 0, a * graph.constants[slope].reshape(shape), a)
    with np.errstate(over="ignore", invalid="ignore"):
        return ACTIVATION[activation.kind](a.astype(np.float64), *p)


ACTIVATION: dict[str, Callable[..., Array]] = {
    "relu": lambda a: np.maximum(a, 0),
    "clip": lambda a, low, high: np.minimum(np.maximum(a, low), high),
    "leaky_relu": lambda a, alpha: np.where(a < 0, alpha * a, a),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "hard_sigmoid": lambda a, alpha, beta: np.clip(alpha * a + beta, 0, 1),
    "hard_swish": lambda a: a * np.clip(a / 6 + 0.5, 0, 1),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "elu": lambda a, alpha: np.where(a < 0, alpha * np.expm1(a), a),
    "softplus": lambda a: np.logaddexp(a, 0),
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "neg": np.negative,
    "erf": _erf,
    "gelu": lambda a: 0.5 * a * (1 + _erf(a / math.sqrt(2))),
}


def _epilogue(a: Array, node: Node, graph: Graph, rest: tuple[Array, ...], axis: int = 1) -> Array:
    shape = [1] * a.ndim
    shape[axis] = -1
    if node.attrs["bias"] is not None:
        a = a + graph.constants[node.attrs["bias"]].reshape(shape)
    for other in rest:
        a = a + other
    return _activate(a, node, graph, axis)


def _windows(x: Array, kernel: Any, strides: Any, dilations: Any, oh: int, ow: int) -> Array:
    """View [n, c, oh, ow, kh, kw] of padded x."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilations
    n, c = x.shape[:2]
    s = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, c, oh, ow, kh, kw), (s[0], s[1], s[2] * sh, s[3] * sw, s[2] * dh, s[3] * dw), writeable=False
    )


def _padded(x: Array, pads: Any, value: float) -> Array:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _conv(node: Node, graph: Graph, x: Array, *rest: Array) -> Array:
    weight, groups = graph.constants[node.attrs["weight"]].astype(np.float64), node.attrs["group"]
    oh, ow = graph.values[node.outputs[0]].shape[2:]
    padded = _padded(x.astype(np.float64), node.attrs["pads"], 0)
    view = _windows(padded, weight.shape[2:], node.attrs["strides"], node.attrs["dilations"], oh, ow)
    pieces = [
        np.einsum("nchwyx,ocyx->nohw", v, w, optimize=True)
        for v, w in zip(np.split(view, groups, axis=1), np.split(weight, groups), strict=True)
    ]
    return _epilogue(np.concatenate(pieces, axis=1), node, graph, rest)


def _fold(node: Node, graph: Graph, x: Array) -> Array:
    out, left = graph.values[node.outputs[0]], node.attrs["left"]
    assert out.format is not None
    pack, step, (n, c, h, w) = out.format.pack, node.attrs["step"], x.shape
    length = (out.shape[3] - 1) * step + pack
    padded = _padded(x, (0, left, 0, max(length - left - w, 0)), 0)
    s = padded.strides
    view = np.lib.stride_tricks.as_strided(padded, (n, c, pack, h, out.shape[3]), (s[0], s[1], s[3], s[2], s[3] * step))
    return view.reshape(n, c * pack, h, out.shape[3])


def _conv_transpose(node: Node, graph: Graph, x: Array, *rest: Array) -> Array:
    weight, groups = graph.constants[node.attrs["weight"]].astype(np.float64), node.attrs["group"]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    top, left = node.attrs["pads"][:2]
    n, o, oh, ow = graph.values[node.outputs[0]].shape
    kh, kw = weight.shape[2:]
    h, w = x.shape[2:]
    full = np.zeros(
        (n, o, max((h - 1) * sh + (kh - 1) * dh + 1, top + oh), max((w - 1) * sw + (kw - 1) * dw + 1, left + ow))
    )
    for ky in range(kh):
        for kx in range(kw):
            parts = [
                np.einsum("nchw,co->nohw", a, b, optimize=True)
                for a, b in zip(np.split(x, groups, axis=1), np.split(weight[:, :, ky, kx], groups), strict=True)
            ]
            rows = slice(ky * dh, ky * dh + (h - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (w - 1) * sw + 1, sw)
            full[:, :, rows, columns] += np.concatenate(parts, axis=1)
    return _epilogue(full[:, :, top : top + oh, left : left + ow], node, graph, rest)


def _gemm(node: Node, graph: Graph, x: Array, *rest: Array) -> Array:
    weight = graph.constants[node.attrs["weight"]].astype(np.float64)
    x = x if x.shape[-1] == weight.shape[1] else x.reshape(len(x), -1)
    return _epilogue(x @ weight.T, node, graph, rest, axis=-1)


def _pool(node: Node, graph: Graph, x: Array) -> Array:
    oh, ow = graph.values[node.outputs[0]].shape[2:]
    average = node.op == "avg_pool"
    dilations = (1, 1) if average else node.attrs["dilations"]
    arguments = (node.attrs["kernel"], node.attrs["strides"], dilations, oh, ow)
    view = _windows(_padded(x, node.attrs["pads"], 0 if average else -np.inf), *arguments)
    if not average:
        return np.asarray(view.max((4, 5)))
    ones = _padded(np.ones_like(x), node.attrs["pads"], float(node.attrs["count_include_pad"]))
    return np.asarray(view.sum((4, 5), dtype=np.float64) / _windows(ones, *arguments).sum((4, 5)))


def _binary(node: Node, graph: Graph, *inputs: Array) -> Array:
    sides = list(inputs)
    if node.attrs["constant"] is not None:
        sides.insert(0 if node.attrs["constant_first"] else 1, graph.constants[node.attrs["constant"]])
    function = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": np.minimum,
        "max": np.maximum, "pow": np.power,
    }[node.attrs["function"]]  # fmt: skip
    with np.errstate(all="ignore"):
        return np.asarray(function(*sides))


def _softmax(node: Node, graph: Graph, x: Array) -> Array:
    a = x.astype(np.float64) - x.max(node.attrs["axis"], keepdims=True)
    total = np.exp(a).sum(node.attrs["axis"], keepdims=True)
    return np.asarray(a - np.log(total) if node.attrs["log"] else np.exp(a) / total)


def _resize(node: Node, graph: Graph, x: Array) -> Array:
    for axis in (2, 3):
        low, high, weight = source_table(
            x.shape[axis], graph.values[node.outputs[0]].shape[axis], node.attrs["scales"][axis - 2],
            node.attrs["mode"], node.attrs["coordinates"], node.attrs["nearest_mode"],
        )  # fmt: skip
        shape = [1] * 4
        shape[axis] = -1
        blend = weight.reshape(shape)
        x = np.take(x, low, axis) * (1 - blend) + np.take(x, high, axis) * blend
    return x


def _per_channel(name: str, node: Node, graph: Graph, x: Array) -> Array:
    return graph.constants[node.attrs[name]].reshape([1, -1] + [1] * (x.ndim - 2))


def _slices(node: Node) -> tuple[slice, ...]:
    return tuple(slice(*s) for s in zip(node.attrs["starts"], node.attrs["ends"], node.attrs["steps"], strict=True))


def _pad(node: Node, graph: Graph, x: Array) -> Array:
    if node.attrs["mode"] == "constant":
        return np.pad(x, node.attrs["pads"], constant_values=node.attrs["value"])
    return np.pad(x, node.attrs["pads"], mode=node.attrs["mode"])


def _recurrent(node: Node, graph: Graph, x: Array, *rest: Array) -> list[Array]:
    a, given = node.attrs, dict(zip(node.attrs["given"], rest, strict=True))
    (t, n, _), h = x.shape, graph.constants[a["recurrence"]].shape[1]

    def constant(key: str, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape) if a[key] is None else graph.constants[a[key]].astype(np.float64)

    states = [given[key] if key in given else constant(f"initial_{key}", (n, h)) for key in "hc"]
    hidden, cell = (state.astype(np.float64) for state in states)
    lengths = np.asarray(given.get("lengths", [t] * n if a["lengths"] is None else a["lengths"]))
    weight, recurrence = constant("weight", ()), constant("recurrence", ())
    bias, inside = constant("bias", (len(weight),)), constant("recurrence_bias", (h,))
    # what an LSTM takes out of its cell isn't clipped: so does onnxruntime
    functions = [partial(_gate, act, a["clip"] if j < 2 else None) for j, act in enumerate(a["activations"])]
    y, rows = np.zeros((t, n, h)), np.arange(n)
    for step in range(t):
        live = (step < lengths)[:, None]
        at = np.where(live[:, 0], lengths - 1 - step if a["reverse"] else step, 0)
        sums = x[at, rows].astype(np.float64) @ weight.T + bias
        if a["kind"] == "gru":
            new, new_cell = _gru(sums, hidden, recurrence, inside, functions, a["linear_before_reset"]), cell
        elif a["kind"] == "lstm":
            new, new_cell = _lstm(sums + hidden @ recurrence.T, cell, functions, a["input_forget"])
        else:
            new, new_cell = functions[0](sums + hidden @ recurrence.T), cell
        y[at[live[:, 0]], rows[live[:, 0]]] = new[live[:, 0]]
        hidden, cell = np.where(live, new, hidden), np.where(live, new_cell, cell)
    empty = (lengths == 0)[:, None]
    return [y, *(np.where(empty, 0, state) for state in (hidden, cell)[: len(node.outputs) - 1])]


def _gate(activation: Activation, clip: float | None, sums: Array) -> Array:
    with np.errstate(over="ignore"):
        a: Array = GATE[activation.kind](sums if clip is None else np.clip(sums, -clip, clip), *activation.params)
        return a


GATE: dict[str, Callable[..., Array]] = {
    **ACTIVATION,
    "affine": lambda a, alpha, beta: alpha * a + beta,
    "thresholded_relu": lambda a, alpha: np.where(a > alpha, a, 0),
    "scaled_tanh": lambda a, alpha, beta: alpha * np.tanh(beta * a),
    "softsign": lambda a: a / (1 + np.abs(a)),
}


def _gru(sums: Array, hidden: Array, recurrence: Array, inside: Array, functions: Any, before_reset: bool) -> Array:
    h = hidden.shape[1]
    z, r = np.split(functions[0](sums[:, : 2 * h] + hidden @ recurrence[: 2 * h].T), 2, axis=1)
    own = recurrence[2 * h :].T
    candidate = functions[1](sums[:, 2 * h :] + (r * (hidden @ own + inside) if before_reset else (r * hidden) @ own))
    return np.asarray((1 - z) * candidate + z * hidden)


def _lstm(sums: Array, cell: Array, functions: Any, coupled: bool) -> tuple[Array, Array]:
    i, o, f, c = np.split(sums, 4, axis=1)
    take = functions[0](i)
    cell = (1 - take if coupled else functions[0](f)) * cell + take * functions[1](c)
    return functions[0](o) * functions[2](cell), cell


def _partition(node: Node, graph: Graph, *inputs: Array) -> list[Array]:
    import onnxruntime

    engine = onnxruntime.InferenceSession(node.attrs["model"], providers=["CPUExecutionProvider"])
    return list(engine.run(list(node.outputs), dict(zip(node.inputs, inputs, strict=True))))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "gemm": _gemm,
    "recurrent": _recurrent,
    "max_pool": _pool,
    "avg_pool": _pool,
    "global_avg_pool": lambda n, g, x: x.mean((2, 3), keepdims=True, dtype=np.float64),
    "global_max_pool": lambda n, g, x: x.max((2, 3), keepdims=True),
    "activation": lambda n, g, x: _activate(x, n, g),
    "binary": _binary,
    "concat": lambda n, g, *xs: np.concatenate(xs, n.attrs["axis"]),
    "slice": lambda n, g, x: x[_slices(n)],
    "split": lambda n, g, x: np.split(x, np.cumsum(n.attrs["sizes"])[:-1], n.attrs["axis"]),
    "pad": _pad,
    "reshape": lambda n, g, x: x.reshape((-1, *n.attrs["shape"][1:]) if n.attrs["shape"] else ()),
    "transpose": lambda n, g, x: x.transpose(n.attrs["perm"]),
    "softmax": _softmax,
    "resize": _resize,
    "reduce_mean": lambda n, g, x: x.mean(n.attrs["axes"], keepdims=n.attrs["keepdims"], dtype=np.float64),
    "scale_shift": lambda n, g, x: x * _per_channel("scale", n, g, x) + _per_channel("shift", n, g, x),
    "identity": lambda n, g, x: x,
    "pack": lambda n, g, x: x,
    "unpack": lambda n, g, x: x,
    "fold": _fold,
    "onnxruntime": _partition,
}
