"""The graph as a program: nodes become operators, and each layer's weights a matrix with its encoding chosen."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.choice import Choice
from prunus.compiler.encode import encode
from prunus.compiler.held import Held, hold
from prunus.compiler.packing import Packed, epilogue, packed_weights
from prunus.compiler.recurrent import apart, as_product, over_time, stacked
from prunus.graph.ir import Activation, Format, Graph, Node, Value
from prunus.kernels.isa import Isa
from prunus.runtime.lower.winograd import over_phases
from prunus.runtime.program import Op, Program, Tensor
from prunus.sparsity import winograd
from prunus.sparsity.encoding import compact
from prunus.sparsity.spans import encode_spans

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A node with weights: its matrix [m, k / groups], filters x (channel, kh, kw). `packed`: the same in words, where
    its input's channels are packed. `pieces`: the matrices that were pruned, where `matrix` is made of several. `held`:
    how single vectors of inputs have their weights, where not as float32."""

    node: Node
    matrix: Floats
    groups: int
    packed: Packed | None = None
    pieces: tuple[Floats, ...] = ()
    held: Held | None = None

    @property
    def encoded(self) -> NDArray[Any]:
        """The matrix that is encoded."""
        if self.held is not None:
            return self.held.encodable(self.matrix)
        return self.matrix if self.packed is None else self.packed.matrix


@dataclass(frozen=True)
class Decision:
    """The choice for a layer and what `explain` says of it."""

    choice: Choice
    scheme: str
    reason: str
    refused: tuple[tuple[str, str], ...] = ()
    measured_ms: float | None = None


PRECISIONS = {1: "", 2: "bf16 ", 4: "int8 "}  # by channels per word, in names of kernels
Decide = Callable[[Layer, Graph], Decision]


def translate(
    graph: Graph, isa: Isa, decide: Decide, reasons: Mapping[str, str] | None = None, *, streaming: bool = False
) -> Program:
    """The program of a graph for an ISA; `decide` chooses for each layer. `reasons`, by layer, of another precision
    than the one asked for join what `explain` says. `streaming`: recurrent layers keep their states."""
    graph = spell_out(graph)
    used = _constants_used(graph)
    constants: dict[str, NDArray[Any]] = {name: graph.constants[name] for name in used}
    ops = []
    for node in graph.nodes:
        attrs = dict(node.attrs)
        if isinstance(attrs.get("activation"), Activation):
            attrs["activation"] = [attrs["activation"].kind, list(attrs["activation"].params)]
        if node.op in ("conv", "gemm"):
            layer = layer_of(node, graph, isa)
            decision = decide(layer, graph)
            attrs |= _layer_attrs(layer, decision, constants)
            if layer.packed is not None:
                made, more = epilogue(node, graph, graph.scales.get(node.attrs["weight"]))
                attrs |= made
                constants.update(more)
            if reasons and node.name in reasons:
                attrs["reason"] += f"; fp32: {reasons[node.name]}"
            del attrs["weight"]
        elif node.op == "recurrent":
            attrs = _recurrent_attrs(node, graph, isa, decide, constants) | {"streaming": streaming}
            if reasons and node.name in reasons:
                attrs["reason"] += f"; fp32: {reasons[node.name]}"
        elif node.op == "onnxruntime":
            name = f"{node.name}.model"
            constants[name] = np.frombuffer(attrs["model"], np.uint8)
            attrs = {"model": name, "kernel_name": "onnxruntime", "reason": "not compiled: runs in onnxruntime"}
        ops.append(Op(node.op, node.name, node.inputs, node.outputs, _plain(attrs)))
    tensors = {name: _tensor(value) for name, value in graph.values.items()}
    return Program(
        graph.name, isa.target, isa.lanes, graph.batch, graph.inputs, graph.outputs, tensors, tuple(ops), constants
    )


def _tensor(value: Value) -> Tensor:
    form = value.format or Format(1)
    return Tensor(tuple(value.shape), value.dtype, form.pack, form.scale, form.zero)


def layer_of(node: Node, graph: Graph, isa: Isa) -> Layer:
    """The matrix of a conv or gemm node."""
    weight = graph.constants[node.attrs["weight"]]
    packed, matrix = packed_weights(node, graph, isa), weight.reshape(len(weight), -1)
    return Layer(node, matrix, int(node.attrs.get("group", 1)), packed, held=hold(node.attrs.get("held"), matrix))


def _layer_attrs(layer: Layer, decision: Decision, constants: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Attributes of the operator; the encoding's arrays join the constants."""
    node, choice, packed = layer.node, decision.choice, layer.packed
    prefix = node.name
    assert f"{prefix}.values" not in constants, f"two layers are named {prefix}"
    if choice.encoding == "winograd":
        constants[f"{prefix}.values"] = winograd.pack(
            over_phases(layer.matrix, node.attrs), choice.heights, choice.section
        )
    elif choice.encoding in ("channels", "depthwise"):
        constants[f"{prefix}.values"] = layer.encoded
    elif choice.encoding == "spans":
        spans = encode_spans(layer.encoded, choice.section)
        constants.update({f"{prefix}.{name}": array for name, array in spans.arrays().items()})
    else:
        encoding = encode(layer.encoded, layer.groups, choice, int(np.prod(node.attrs.get("kernel", 1))))
        if packed is not None:
            shape = (len(packed.matrix), packed.columns)
            encoding = replace(encoding, shape=shape, columns=packed.source[encoding.columns])
        arrays = compact(encoding)
        constants.update({f"{prefix}.{name}": array for name, array in arrays.items()})
    if layer.held is not None:
        constants[f"{prefix}.values"] = layer.held.values(constants[f"{prefix}.values"])
        if layer.held.scales is not None:
            constants[f"{prefix}.scale"] = layer.held.scales
    kept = int(np.count_nonzero(layer.matrix))
    attrs: dict[str, Any] = {
        "encoding": prefix,
        "matrix": [len(layer.matrix), layer.matrix.shape[1] * layer.groups]
        if packed is None or packed.lone
        else [len(packed.matrix), packed.columns],
        "kept": kept,
        "sparsity": 1 - kept / max(layer.matrix.size, 1),
        "scheme": decision.scheme,
        "kernel_name": PRECISIONS[packed.pack if packed else 1] + _kernel_name(node, choice),
        "reason": decision.reason,
        "refused": decision.refused,
        "measured_ms": decision.measured_ms,
        "choice": asdict(choice),
    }
    if node.op == "conv":
        attrs["kernel"] = layer.node.attrs["kernel"]
    if layer.held is not None:
        attrs["kernel_name"] = f"{layer.held.form} weights, {attrs['kernel_name']}"
        attrs["scale"] = f"{prefix}.scale" if layer.held.scales is not None else None
    return attrs


def _kernel_name(node: Node, choice: Choice) -> str:
    if node.op == "conv" or choice.encoding == "spans":
        return str(choice)
    return f"gemv {max(choice.heights)}"


def _recurrent_attrs(
    node: Node, graph: Graph, isa: Isa, decide: Decide, constants: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Attributes of a recurrent layer: those of its step's product, of a second one under "second", which is computed
    the same way, and under "over_time" of the input's part where that is a product by itself."""
    made = stacked(node, graph)
    parts = apart(node, graph, made)
    product, alone = as_product(
        node, graph, made.matrix if parts is None else parts.recurrence, again=parts is not None
    )
    weight, recurrence = (graph.constants[node.attrs[key]] for key in ("weight", "recurrence"))
    held = hold(node.attrs.get("held"), made.matrix)  # alike whatever the number of steps
    layer = replace(layer_of(product, alone, isa), pieces=(recurrence, weight), held=held)
    decision = decide(layer, alone)
    attrs = _layer_attrs(layer, decision, constants)
    kept = attrs["kept"]
    if parts is not None:
        product, alone = over_time(node, graph, parts)
        layer = replace(layer_of(product, alone, isa), pieces=(weight,))
        if held is not None:
            layer = replace(layer, matrix=held.of_rows(len(weight)).rounded(weight))
        attrs["over_time"] = _layer_attrs(layer, decide(layer, alone), constants) | {"block": parts.block}
        attrs["kernel_name"] += f"; over time: {attrs['over_time']['kernel_name']}"
        kept += attrs["over_time"]["kept"]
    if made.second is not None:
        other, alone = as_product(replace(node, name=f"{node.name}.candidate"), graph, made.second)
        attrs["second"] = _layer_attrs(layer_of(other, alone, isa), decision, constants)
        kept += attrs["second"]["kept"]
    if made.bias is not None:
        attrs["bias"] = f"{node.name}.bias"
        constants[attrs["bias"]] = made.bias
    for key in ("kind", "linear_before_reset", "reverse", "clip", "input_forget", "given", "lengths"):
        attrs[key] = node.attrs[key]
    for key in ("initial_h", "initial_c"):
        attrs[key] = node.attrs[key]
        if attrs[key] is not None:
            constants[attrs[key]] = graph.constants[attrs[key]]
    attrs["activations"] = [[act.kind, act.params] for act in node.attrs["activations"]]
    return attrs | {
        "input_start": made.input_start, "joined": made.matrix.shape[1], "kept": kept,
        "sparsity": 1 - kept / max(made.size, 1),
    }  # fmt: skip


def spell_out(graph: Graph) -> Graph:
    """Write nodes in terms of those that plans know: transposed convolutions, convolutions whose residual can't be
    read in place."""
    nodes: list[Node] = []
    values, constants = dict(graph.values), dict(graph.constants)
    foreign = set(graph.inputs) | {name for n in graph.nodes if n.op == "onnxruntime" for name in n.outputs}
    for node in graph.nodes:
        if node.op in ("conv", "conv_transpose") and len(node.inputs) > 1 and (
            node.op == "conv_transpose" or node.inputs[1] in foreign
        ):  # fmt: skip
            first, *rest = _without_residual(node, values)
        else:
            first, rest = node, []
        if first.op == "conv_transpose":
            nodes += _transposed(first, values, constants)
        elif first.op == "conv":
            kernel = constants[first.attrs["weight"]].shape[2:]
            nodes.append(replace(first, attrs={**first.attrs, "kernel": tuple(kernel)}))
        else:
            nodes.append(first)
        nodes += rest
    return replace(graph, nodes=tuple(nodes), values=values, constants=constants)


def _without_residual(node: Node, values: dict[str, Value]) -> list[Node]:
    """The node, then an addition, then the activation."""
    out = node.outputs[0]
    names = [f"{out}.{suffix}" for suffix in ("alone", "sum")]
    for name in names:
        values[name] = replace(values[out], name=name)
    add = {"function": "add", "constant": None, "constant_first": False}
    alone = {**node.attrs, "activation": None, "slope": None}
    act = {"activation": node.attrs["activation"] or Activation("leaky_relu", (1.0,)), "slope": node.attrs["slope"]}
    return [
        replace(node, inputs=node.inputs[:1], outputs=(names[0],), attrs=alone),
        Node("binary", f"{node.name}.add", (names[0], node.inputs[1]), (names[1],), add),
        Node("activation", f"{node.name}.activation", (names[1],), (out,), act),
    ]


def _transposed(node: Node, values: dict[str, Value], constants: dict[str, NDArray[Any]]) -> list[Node]:
    """A transposed convolution as a convolution with an output channel per (filter, phase), and an interleave.

    Output row oy = s * q + a gets input row q + (a + top - ky * d) / s times kernel row ky, for the ky that divide.
    """
    weight = constants[node.attrs["weight"]]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    top, left = node.attrs["pads"][:2]
    groups = node.attrs["group"]
    i, o_per, kh, kw = weight.shape
    o = o_per * groups
    oh, ow = values[node.outputs[0]].shape[2:]
    ys, xs = _phase_taps(kh, sh, top, dh), _phase_taps(kw, sw, left, dw)
    y_low, y_high = min(t[2] for t in ys), max(t[2] for t in ys)
    x_low, x_high = min(t[2] for t in xs), max(t[2] for t in xs)
    spread = np.zeros((o, sh, sw, i // groups, y_high - y_low + 1, x_high - x_low + 1), np.float32)
    by_group = weight.reshape(groups, i // groups, o_per, kh, kw).swapaxes(1, 2).reshape(o, i // groups, kh, kw)
    for ky, a, dy in ys:
        for kx, b, dx in xs:
            spread[:, a, b, :, dy - y_low, dx - x_low] = by_group[:, :, ky, kx]
    name = node.name
    constants[f"{name}.phases"] = spread.reshape(o * sh * sw, i // groups, *spread.shape[4:])
    attrs = dict(node.attrs)
    del attrs["output_pads"]
    for key in ("bias", "slope"):
        if attrs[key] is not None:
            constants[f"{name}.{key}"] = np.repeat(constants[attrs[key]], sh * sw)
            attrs[key] = f"{name}.{key}"
    n, _, h, w = values[node.inputs[0]].shape
    qh, qw = -(-oh // sh), -(-ow // sw)
    attrs |= {
        "weight": f"{name}.phases", "strides": (1, 1), "dilations": (1, 1), "kernel": spread.shape[4:],
        "pads": (-y_low, -x_low, qh - 1 + y_high - (h - 1), qw - 1 + x_high - (w - 1)),
    }  # fmt: skip
    inner = f"{node.outputs[0]}.phases"
    values[inner] = Value(inner, (n, o * sh * sw, qh, qw))
    return [
        Node("conv", name, node.inputs, (inner,), attrs),
        Node("interleave", f"{name}.interleave", (inner,), node.outputs, {"strides": (sh, sw)}),
    ]


def _phase_taps(kernel: int, stride: int, before: int, dilation: int) -> list[tuple[int, int, int]]:
    """(kernel position, output phase, input shift) of an axis of a transposed convolution."""
    return [
        (k, a, (a + before - k * dilation) // stride)
        for k in range(kernel)
        for a in range(stride)
        if (a + before - k * dilation) % stride == 0
    ]


def _constants_used(graph: Graph) -> list[str]:
    """Constants that operators name, but for layers' weights, in order of use."""
    keys = ("bias", "slope", "constant", "scale", "shift")
    names = [node.attrs[key] for node in graph.nodes for key in keys if node.attrs.get(key) is not None]
    return list(dict.fromkeys(names))


def _plain(value: Any) -> Any:
    """Tuples and numpy scalars as JSON knows them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
