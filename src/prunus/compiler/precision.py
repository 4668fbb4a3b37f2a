"""Lower precision as a pass over the graph: which values are packed, and where they are packed and unpacked.

A layer (conv, gemm) is packed where its shape allows it and the formats of what it reads and makes are known; operators
that only move or compare values are where all they read is. Everything else stays float32, with a node "pack" or
"unpack" in between. Recurrent layers have their weights held in it, and compute in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunus.compiler.packing import is_depthwise
from prunus.graph.ir import Format, Graph, Node, Value, consumers
from prunus.sparsity import words

MOST_STEPS = 2.0**30  # of a sum in steps of the output: the epilogue rounds in int32
PACKS = {"bf16": 2, "int8": 4}
FOLLOWERS = ("max_pool", "concat", "reshape", "identity")  # packed where their inputs are, in one format


@dataclass(frozen=True)
class Lowered:
    """The graph, and for each layer that stays float32 why it does."""

    graph: Graph
    refused: Mapping[str, str]


def lower(
    graph: Graph, precision: str, formats: Mapping[str, Format], keep: Mapping[str, str] | None = None,
    means: Mapping[str, words.Floats] | None = None,
) -> Lowered:  # fmt: skip
    """The graph in `precision`, of spelled-out nodes. `formats` are those of values, in int8; layers in `keep` stay
    float32 for the reason given there.

    `means`, float32[c], of values: what rounding the weights does to the mean of a layer's output is then taken back in
    its bias (bias correction: Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2, with measured means).
    """
    pack = PACKS[precision]
    state = _State(graph, pack, formats if pack == 4 else _everything(graph), means or {})
    refused: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "recurrent":
            if reason := (keep or {}).get(node.name):
                refused[node.name] = reason
                state.real(node)
            else:
                state.real(replace(node, attrs={**node.attrs, "held": precision}))
        elif node.op in ("conv", "gemm"):
            reason = (keep or {}).get(node.name) or why_not(node, graph, pack) or state.lacks(node)
            if reason:
                refused[node.name] = reason
                state.real(node)
            else:
                state.layer(node)
        elif node.op in FOLLOWERS and state.can_follow(node):
            state.follow(node)
        elif node.op == "global_avg_pool" and node.inputs[0] in state.packed:
            state.mean(node)
        else:
            state.real(node)
    return Lowered(state.finish(), refused)


def why_not(node: Node, graph: Graph, pack: int) -> str | None:
    """Why a layer can't be computed over packed channels; None when it can."""
    shape = graph.values[node.inputs[0]].shape
    if len(shape) not in (2, 4):
        return f"its input has {len(shape)} axes"
    if node.op == "gemm":
        return None
    weight, groups = graph.constants[node.attrs["weight"]].shape, int(node.attrs["group"])
    if groups == 1 or (weight[1] == 1 and weight[0] == groups):
        return None
    if weight[1] % pack or weight[0] // groups % pack:
        return f"groups of {weight[1]} channels and {weight[0] // groups} filters, expected multiples of {pack}"
    return None


def _everything(graph: Graph) -> dict[str, Format]:
    """bfloat16 needs no ranges."""
    return {name: Format(2) for name in graph.values}


class _State:
    """Nodes made so far, and under which name each value is there packed and as float32."""

    def __init__(
        self, graph: Graph, pack: int, formats: Mapping[str, Format], means: Mapping[str, words.Floats]
    ) -> None:
        self.graph, self.pack, self.formats, self.means = graph, pack, formats, means
        self.readers = consumers(graph)
        self.nodes: list[Node] = []
        self.values = dict(graph.values)
        self.constants, self.scales = dict(graph.constants), dict(graph.scales)
        self.packed: dict[str, str] = {}
        self.reals = {name: name for name in graph.inputs}

    def lacks(self, node: Node) -> str | None:
        """Why a layer has no formats to work with; None when it has."""
        out = () if self.makes_real(node) else node.outputs
        for name in (*node.inputs, *out):
            if name not in self.formats:
                return f"no range of {name} is known"
        if self.pack == 4 and out and self._largest(node) > MOST_STEPS:
            return f"the range of {node.outputs[0]} is too narrow for what may be summed up"
        return None

    def makes_real(self, node: Node) -> bool:
        """Nothing that reads the layer's output could read it packed: it is made as float32, and loses nothing."""
        if is_depthwise(node, self.graph):
            return False
        return not any(reader.op in ("conv", "gemm", *FOLLOWERS) for reader in self.readers[node.outputs[0]])

    def _largest(self, node: Node) -> float:
        """The largest sum that there can be before the activation, in steps of the output."""
        weight = self.constants[node.attrs["weight"]]
        x, out = self.formats[node.inputs[0]], self.formats[node.outputs[0]]
        largest = float(np.abs(weight.reshape(len(weight), -1)).sum(axis=1, dtype=np.float64).max(initial=0))
        bias = 0.0 if node.attrs["bias"] is None else float(np.abs(self.constants[node.attrs["bias"]]).max(initial=0))
        others = sum(256 * self.formats[name].scale for name in node.inputs[1:])
        return (256 * x.scale * largest + bias + others) / out.scale + 256

    def layer(self, node: Node) -> None:
        """A layer over packed channels, with its weights rounded; a gemm without a known range makes float32."""
        key, real = node.attrs["weight"], self.makes_real(node)
        weight = self.constants[key]
        matrix = weight.reshape(len(weight), -1)
        name = f"{node.name}.rounded"
        if self.pack == 2:
            self.constants[name] = words.from_bf16(words.bf16_bits(matrix)).reshape(weight.shape)
        else:
            scales = _scales(matrix, self.scales.get(key))
            positions = int(np.prod(weight.shape[2:]))
            steps = words.quantised(matrix, scales, positions).astype(np.float32)
            self.constants[name] = (steps * scales[:, None]).reshape(weight.shape)
            self.scales[name] = scales
        attrs = {**node.attrs, "weight": name}
        if node.inputs[0] in self.means:
            attrs["bias"] = f"{node.name}.corrected"
            self.constants[attrs["bias"]] = self._corrected(node, weight - self.constants[name])
        out = node.outputs[0]
        if self.can_fold(node):
            node = self._folded(node, attrs)
        else:
            node = replace(node, attrs=attrs, inputs=tuple(self.as_packed(value) for value in node.inputs))
        if real:
            self.nodes.append(node)
            self.reals[out] = out
        else:
            self.nodes.append(replace(node, outputs=(self._make_packed(out),)))

    def can_fold(self, node: Node) -> bool:
        """A convolution whose words are better made of neighbours in a row: few channels, which leave words half empty,
        and a wide kernel. Its input is read by nobody else in words."""
        x = node.inputs[0]
        if node.op != "conv" or len(node.inputs) > 1 or x in self.packed or len(self.readers[x]) > 1:
            return False
        _, channels, _, kw = self.constants[node.attrs["weight"]].shape
        height, width = self.graph.values[node.outputs[0]].shape[2:]
        if node.attrs["group"] != 1 or node.attrs["dilations"][1] != 1 or self.pack % node.attrs["strides"][1]:
            return False
        return height * width > 1 and channels * -(-kw // self.pack) < -(-channels // self.pack) * kw

    def _folded(self, node: Node, attrs: dict[str, Any]) -> Node:
        """The convolution over words of neighbours, and before it the node that makes them: kernel positions side by
        side become channels, and its columns lie a word apart."""
        x, name = node.inputs[0], f"{node.inputs[0]}.folded"
        source, weight, pack = self.graph.values[x], self.constants[attrs["weight"]], self.pack
        (o, c, kh, kw), step, words_wide = weight.shape, attrs["strides"][1], -(-weight.shape[3] // pack)
        width = self.graph.values[node.outputs[0]].shape[3] + (words_wide - 1) * pack // step
        top, left, bottom, _ = attrs["pads"]
        shape = (source.shape[0], c * pack, source.shape[2], width)
        self.values[name] = replace(source, name=name, shape=shape, format=self.formats[x])
        self.nodes.append(Node("fold", name, (self.as_real(x),), (name,), {"step": step, "left": left}))
        full = np.zeros((o, c, kh, words_wide * pack), np.float32)
        full[..., :kw] = weight
        spread = full.reshape(o, c, kh, words_wide, pack).transpose(0, 1, 4, 2, 3)
        self.constants[attrs["weight"]] = np.ascontiguousarray(spread.reshape(o, c * pack, kh, words_wide))
        attrs = {
            **attrs, "strides": (attrs["strides"][0], 1), "pads": (top, 0, bottom, 0),
            "dilations": (attrs["dilations"][0], pack // step), "kernel": (kh, words_wide),
        }  # fmt: skip
        return replace(node, attrs=attrs, inputs=(name,))

    def _corrected(self, node: Node, lost: words.Floats) -> words.Floats:
        """The bias, and the mean of what rounding took from the weights times the mean of the input's channels."""
        mean = self.means[node.inputs[0]].astype(np.float64)
        groups = int(node.attrs.get("group", 1))
        per_channel = lost.reshape(len(lost), len(mean) // groups, -1).sum(axis=2, dtype=np.float64)
        own = np.repeat(mean.reshape(groups, -1), len(lost) // groups, axis=0)
        bias = 0 if node.attrs["bias"] is None else self.constants[node.attrs["bias"]]
        return np.asarray(bias + (per_channel * own).sum(axis=1), np.float32)

    def can_follow(self, node: Node) -> bool:
        """Everything the node reads is packed, in one format, and stays whole words."""
        if not all(name in self.packed for name in node.inputs):
            return False
        formats = {self.values[self.packed[name]].format for name in node.inputs}
        shapes = [self.graph.values[name].shape for name in (*node.inputs, *node.outputs)]
        if len(formats) > 1 or not all(len(shape) in (2, 4) for shape in shapes):
            return False
        if node.op == "concat":
            whole = all(shape[1] % self.pack == 0 for shape in shapes[:-2])
            return node.attrs["axis"] % len(shapes[0]) == 1 and whole
        if node.op == "reshape":  # channels stay channels
            return shapes[0][:2] == shapes[1][:2] and all(n == 1 for shape in shapes for n in shape[2:])
        return True

    def follow(self, node: Node) -> None:
        """The node over packed channels."""
        form = self.values[self.packed[node.inputs[0]]].format
        out = self._make_packed(node.outputs[0], form)
        self.nodes.append(replace(node, inputs=tuple(self.packed[name] for name in node.inputs), outputs=(out,)))

    def mean(self, node: Node) -> None:
        """The mean of packed channels is float32."""
        self.nodes.append(replace(node, inputs=(self.packed[node.inputs[0]],)))
        self.reals[node.outputs[0]] = node.outputs[0]

    def real(self, node: Node) -> None:
        """The node as it was, on float32."""
        self.nodes.append(replace(node, inputs=tuple(self.as_real(name) for name in node.inputs)))
        self.reals |= {name: name for name in node.outputs}

    def as_packed(self, value: str) -> str:
        """The name under which a value is there packed; packs it first if need be."""
        if value not in self.packed:
            source = self.as_real(value)
            name = self._make_packed(value)
            self.nodes.append(Node("pack", name, (source,), (name,)))
        return self.packed[value]

    def as_real(self, value: str) -> str:
        """The name under which a value is there as float32; unpacks it first if need be."""
        if value not in self.reals:
            self.nodes.append(Node("unpack", f"{value}.unpack", (self.packed[value],), (value,)))
            self.reals[value] = value
        return self.reals[value]

    def _make_packed(self, value: str, form: Format | None = None) -> str:
        name = f"{value}.packed"
        self.values[name] = replace(self.graph.values[value], name=name, format=form or self.formats[value])
        self.packed[value] = name
        return name

    def finish(self) -> Graph:
        for name in self.graph.outputs:
            self.as_real(name)
        used = {name for node in self.nodes for name in (*node.inputs, *node.outputs)}
        ports = {*self.graph.inputs, *self.graph.outputs}
        values: dict[str, Value] = {name: v for name, v in self.values.items() if name in used or name in ports}
        return replace(self.graph, nodes=tuple(self.nodes), values=values, constants=self.constants, scales=self.scales)


def _scales(matrix: words.Floats, known: words.Floats | None) -> words.Floats:
    """Steps per row: those that the file has where its weights are whole steps of them, else 127 to the largest."""
    if known is not None and known.size in (1, len(matrix)):
        scales = np.broadcast_to(known.astype(np.float32).ravel(), (len(matrix),))
        steps = matrix / scales[:, None]
        if np.abs(steps - np.rint(steps)).max(initial=0) < 1e-2 and np.abs(steps).max(initial=0) < words.MOST + 0.5:
            return np.ascontiguousarray(scales)
    return words.row_scales(matrix)
