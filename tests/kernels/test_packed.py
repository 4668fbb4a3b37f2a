"""Layers over packed channels, exactly: scales are powers of two, so that every sum and every rounding is exact."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.compiler.choice import CHANNELS, SECTION_VALUES, Choice, LayerShape, Zeros, candidates
from prunus.compiler.packing import is_depthwise
from prunus.compiler.precision import PACKS, lower
from prunus.compiler.translate import Decision, Layer, spell_out, translate
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import Activation, Format, Graph, Node, Value
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from tests.kernels.runners import Runner

GUARD = 777.0
ACTIVATIONS = (None, Activation("relu"), Activation("clip", (-2.0, 3.5)), Activation("leaky_relu", (0.5,)), "prelu")
EPILOGUE = {"bias": None, "activation": None, "slope": None}


class Net:
    """A graph made node by node; every value gets a format whose scale is a power of two."""

    def __init__(self, rng: np.random.Generator, precision: str, shape: tuple[int, ...]) -> None:
        self.rng, self.precision = rng, precision
        self.nodes: list[Node] = []
        self.values = {"x": Value("x", shape)}
        self.constants: dict[str, np.ndarray] = {}
        self.scales: dict[str, np.ndarray] = {}
        self.formats = {"x": Format(4, 0.5, 100)}

    def add(self, op: str, inputs: tuple[str, ...], shape: tuple[int, ...], form: Format, **attrs: Any) -> str:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(Node(op, name, inputs, (name,), attrs))
        self.values[name], self.formats[name] = Value(name, shape), form
        return name

    def weights(self, shape: tuple[int, ...], most: int = 127, density: float = 0.6) -> str:
        name = f"w{len(self.constants)}"
        most = most if self.precision == "int8" else 3
        steps = self.rng.integers(-most, most + 1, shape) * (self.rng.random(shape) < density)
        steps[0].ravel()[0] = most
        self.scales[name] = (2.0 ** self.rng.integers(-7, -3, len(steps))).astype(np.float32)
        self.constants[name] = (steps * self.scales[name].reshape(-1, *[1] * (len(shape) - 1))).astype(np.float32)
        return name

    def bias(self, n: int) -> str:
        name = f"b{len(self.constants)}"
        self.constants[name] = (self.rng.integers(-40, 40, n) / 8).astype(np.float32)
        return name

    def conv(
        self, x: str, filters: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, pads: Any = None,
        groups: int = 1, act: Any = None, residual: str | None = None, zero: int = 90, scale: float = 4.0, **more: Any,
    ) -> str:  # fmt: skip
        n, c, h, w = self.values[x].shape
        pads = pads or (kernel[0] // 2, kernel[1] // 2) * 2
        oh = (h + pads[0] + pads[2] - kernel[0]) // stride + 1
        ow = (w + pads[1] + pads[3] - kernel[1]) // stride + 1
        weight = self.weights((filters, c // groups, *kernel), **more)
        attrs = {
            "weight": weight, "strides": (stride, stride), "pads": pads, "dilations": (1, 1), "group": groups,
            **EPILOGUE, "bias": self.bias(filters), "activation": Activation("prelu") if act == "prelu" else act,
        }  # fmt: skip
        if act == "prelu":
            attrs["slope"] = self.bias(filters)
        inputs = (x,) if residual is None else (x, residual)
        return self.add("conv", inputs, (n, filters, oh, ow), Format(4, scale, zero), **attrs)

    def gemm(self, x: str, outputs: int, act: Any = None) -> str:
        k = int(np.prod(self.values[x].shape[1:]))
        attrs = {"weight": self.weights((outputs, k)), **EPILOGUE, "bias": self.bias(outputs), "activation": act}
        return self.add("gemm", (x,), (self.values[x].shape[0], outputs), Format(4, 0.5, 128), **attrs)

    def graph(self, *outputs: str) -> Graph:
        graph = Graph(
            "net", ("x",), outputs or (self.nodes[-1].outputs[0],), tuple(self.nodes), self.values, self.constants,
            True, scales=self.scales,
        )  # fmt: skip
        return spell_out(graph)


def decide(runner: Runner, which: int, graph: Graph, choice: Choice | None = None) -> Any:
    """The candidate number `which` of every layer, counted round; or `choice`."""

    def choose(layer: Layer, _: Graph) -> Decision:
        if choice is not None:
            return Decision(choice, "", "")
        node = layer.node
        assert layer.packed is not None
        out = graph.values[node.outputs[0]].shape
        pixels = node.op == "conv" and out[2] * out[3] > 1
        vectors = -(-((out[2] - 1) * (out[3] + 3) + out[3]) // runner.isa.lanes) if pixels else 0
        shape = LayerShape(
            len(layer.encoded), layer.packed.columns, layer.groups, vectors, 2, 0, layer.packed.pack, layer.packed.lone
        )
        options = candidates(shape, Zeros(0.5, 1.0, None), runner.isa)
        return Decision(options[which % len(options)], "", "")

    return choose


def check(
    runner: Runner, net: Net, graph: Graph, *, which: int = 0, batch: int = 1, extreme: bool = False,
    choice: Choice | None = None,
) -> None:  # fmt: skip
    """The lowered graph gives what the oracle gives, to the last bit, with guards untouched."""
    lowered = lower(graph, net.precision, net.formats)
    assert not lowered.refused
    program, constants = pack(translate(lowered.graph, runner.isa, decide(runner, which, lowered.graph, choice)))
    plan = make_plan(program, batch)
    shape = (batch, *net.values["x"].shape[1:])
    low, high = (-50, 77) if net.precision == "int8" else (-4, 5)
    x = net.rng.integers(low, high + 1, shape).astype(np.float32)
    x = np.where(net.rng.random(shape) < 0.5, low, high).astype(np.float32) if extreme else x
    answers = [np.full((batch, *net.values[name].shape[1:]), GUARD, np.float32) for name in graph.outputs]
    arena = np.full(plan.arena, GUARD, np.float32)
    runner.run(plan.records, plan.tables, constants, arena, [x, *answers], plan.scratch, 1 + which % 2)
    wide = replace(lowered.graph, values={k: resized(v, batch) for k, v in lowered.graph.values.items()})
    expected = evaluate(wide, {"x": x})
    for name, answer in zip(graph.outputs, answers, strict=True):
        assert_array_equal(answer, expected[name], err_msg=f"{name} {which} {net.values}")
        assert len(np.unique(answer)) > 1 or answer.size == 1, f"{name} is constant: nothing was tested"


def resized(value: Value, batch: int) -> Value:
    return replace(value, shape=(value.shape[0] * batch, *value.shape[1:]))


def is_slow(runner: Runner) -> bool:
    return type(runner).__name__ == "Program"


@pytest.mark.parametrize("precision", PACKS)
def test_every_tile(runner: Runner, precision: str) -> None:
    """Heights and vectors of the list, every tail: widths from one vector to beyond the widest tile."""
    rng = np.random.default_rng(0)
    tiles = len(runner.isa.tiles_of(PACKS[precision]))
    for which in range(0, 2 * tiles, 3 if is_slow(runner) else 1):
        for size in (1, 2, 3, 5, 7, 11, 18)[:: 3 if is_slow(runner) else 1]:
            net = Net(rng, precision, (1, int(rng.integers(1, 11)), size, int(rng.integers(1, 30)) + (size == 1)))
            y = net.conv("x", int(rng.integers(1, 27)), (3, 3), pads=(1, 1, 1, 1))
            net.conv(y, 9, (3, 3), pads=(1, 1, 1, 1), most=3)
            check(runner, net, net.graph(y, net.nodes[-1].outputs[0]), which=which)


@pytest.mark.parametrize("precision", PACKS)
@pytest.mark.parametrize("act", ACTIVATIONS, ids=str)
def test_epilogues(runner: Runner, precision: str, act: Any) -> None:
    """Bias, residual and activation; packed and float32 outputs; zero points at both ends."""
    rng = np.random.default_rng(1)
    fine = 0.125 if getattr(act, "kind", "") == "clip" else 16.0
    for i, zero in enumerate((0, 90, 200)):
        net = Net(rng, precision, (1, 6, 7, 9))
        a = net.conv("x", 10, (3, 3), zero=zero, scale=8.0)
        b = net.conv(a, 10, (1, 1), act=act, residual=a, zero=zero, scale=fine, most=3)
        net.conv(b, 5, (3, 3), act=act, most=3)
        check(runner, net, net.graph(a, b, net.nodes[-1].outputs[0]), which=i)


@pytest.mark.parametrize("precision", PACKS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strides_and_pads(runner: Runner, precision: str, stride: int) -> None:
    rng = np.random.default_rng(2)
    for i, pads in enumerate(((0, 0, 0, 0), (2, 0, 1, 3), (0, 2, 2, 0))):
        net = Net(rng, precision, (1, 5, 13, 16))
        y = net.conv("x", 8, (5, 3), stride, pads)
        net.conv(y, 7, (3, 5), stride, most=3)
        check(runner, net, net.graph(y, net.nodes[-1].outputs[0]), which=i, batch=1 + i)


@pytest.mark.parametrize("precision", PACKS)
@pytest.mark.parametrize(
    ("channels", "kernel", "stride"), [(3, (7, 7), 2), (1, (3, 3), 1), (1, (2, 5), 2), (3, (3, 12), 2)]
)
def test_words_of_neighbours(runner: Runner, precision: str, channels: int, kernel: Any, stride: int) -> None:
    """A first layer with few channels and a wide kernel, at odd and even borders."""
    rng = np.random.default_rng(9)
    for i, (pads, width) in enumerate((((3, 3, 3, 3), 39), ((0, 2, 1, 0), 40), ((0, 0, 0, 0), 33))):
        net = Net(rng, precision, (1, channels, 9, width))
        if i == 1:
            turned = net.add("transpose", ("x",), (1, channels, 9, width), net.formats["x"], perm=(0, 1, 2, 3))
            net.formats[turned] = net.formats["x"]
        y = net.conv("x" if i != 1 else turned, 7, kernel, stride, pads, act=Activation("relu"))
        net.conv(y, 5, (3, 3), most=3)
        graph = net.graph(y, net.nodes[-1].outputs[0])
        assert [node.op for node in lower(graph, precision, net.formats).graph.nodes].count("fold") == 1
        check(runner, net, graph, which=i, batch=1 + i % 2)


def test_neighbours_only_where_they_save_words(runner: Runner) -> None:
    for shape, kernel, stride in (((1, 4, 9, 9), (7, 7), 2), ((1, 3, 9, 9), (3, 3), 2), ((1, 3, 9, 9), (7, 7), 3)):
        net = Net(np.random.default_rng(10), "int8", shape)
        net.conv("x", 8, kernel, stride)
        assert "fold" not in [node.op for node in lower(net.graph(), "int8", net.formats).graph.nodes]
    net = Net(np.random.default_rng(10), "int8", (1, 1, 9, 9))
    a, b = net.conv("x", 8, (3, 3)), net.conv("x", 4, (3, 3))
    assert "fold" not in [node.op for node in lower(net.graph(a, b), "int8", net.formats).graph.nodes]


@pytest.mark.parametrize("precision", PACKS)
@pytest.mark.parametrize("channels", [2, 4, 7, 12])
def test_depthwise(runner: Runner, precision: str, channels: int) -> None:
    rng = np.random.default_rng(3)
    for i, (kernel, stride) in enumerate((((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((5, 5), 2), ((1, 4), 1))):
        net = Net(rng, precision, (1, channels, 12, 14))
        a = net.conv("x", channels, kernel, stride, groups=channels, density=1.0, act=ACTIVATIONS[i])
        b = net.conv(a, channels, (3, 3), groups=channels, residual=a, most=3)
        net.conv(b, 6)
        graph = net.graph(a, b, net.nodes[-1].outputs[0])
        assert is_depthwise(graph.nodes[0], graph)
        check(runner, net, graph, which=i, batch=1 + i % 2)


@pytest.mark.parametrize("precision", PACKS)
def test_grouped(runner: Runner, precision: str) -> None:
    rng = np.random.default_rng(4)
    for which in range(4):
        net = Net(rng, precision, (1, 24, 6, 7))
        y = net.conv("x", 16, (3, 3), groups=2)
        net.conv(y, 4, (3, 3), most=3)
        check(runner, net, net.graph(y, net.nodes[-1].outputs[0]), which=which)


@pytest.mark.parametrize("precision", PACKS)
def test_fully_connected(runner: Runner, precision: str) -> None:
    """Vectors of inputs, feature maps read where they lie, maps of one pixel; several images."""
    rng = np.random.default_rng(5)
    for which, outputs in enumerate((1, 3, 8, 33, 70)):
        net = Net(rng, precision, (1, 7, 3, 5))
        a = net.conv("x", 6, (2, 2), pads=(0, 0, 0, 0))
        b = net.gemm(a, outputs, ACTIVATIONS[which] if which < 4 else None)
        c = net.gemm(b, outputs + 2)
        check(runner, net, net.graph(b, c), which=which, batch=1 + which % 3)
    net = Net(rng, precision, (1, 7, 3, 5))
    a = net.conv("x", 13, (3, 5), pads=(0, 0, 0, 0))
    b = net.conv(a, 10, residual=None, most=3)
    net.conv(b, 10, residual=a if net.values[a].shape == net.values[b].shape else None, most=3)
    check(runner, net, net.graph(a, b, net.nodes[-1].outputs[0]), batch=2)


@pytest.mark.parametrize("precision", PACKS)
def test_float32_outputs(runner: Runner, precision: str) -> None:
    """Layers that nobody reads in words: the last word is half empty, with residual, activation and padding."""
    rng = np.random.default_rng(11)
    for which in range(3):
        for act in ACTIVATIONS:
            net = Net(rng, precision, (1, 6, 5, 23))
            a = net.conv("x", 10 if which else 9, (3, 3))
            b = net.conv(a, net.values[a].shape[1], act=act, residual=a, most=3)
            check(runner, net, net.graph(b), which=which)


@pytest.mark.parametrize("precision", PACKS)
def test_gemv_of_classes_of_half_a_vector(runner: Runner, precision: str) -> None:
    """Rows that share their columns in twos fill vectors two by two."""
    rng = np.random.default_rng(12)
    half = runner.isa.lanes // 2
    net = Net(rng, precision, (1, 24, 1, 1))
    y = net.gemm("x", 3 * runner.isa.lanes + half + 1)
    net.gemm(y, 5)
    weight = net.constants[net.nodes[0].attrs["weight"]]
    keep = np.repeat(rng.random((-(-len(weight) // half), 24)) < 0.5, half, axis=0)[: len(weight)]
    weight *= keep
    weight[0, 0] = net.scales["w0"][0] * 3
    shape = LayerShape(len(weight), 24, 1, 0, 1, 0, PACKS[precision])
    first = candidates(shape, Zeros(0.1, float(half), None), runner.isa)[0]
    assert first.union == runner.isa.lanes
    check(runner, net, net.graph(y, net.nodes[-1].outputs[0]), choice=first, batch=2)


@pytest.mark.parametrize("precision", PACKS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pools(runner: Runner, precision: str, stride: int) -> None:
    rng = np.random.default_rng(6)
    for size, kernel, pad in ((6, 2, 0), (19, 3, 1), (37, 3, 1), (40, 4, 2)):
        net = Net(rng, precision, (1, 5, size, size + 1))
        a = net.conv("x", 9, zero=0)
        h, w = ((n + 2 * pad - kernel) // stride + 1 for n in (size, size + 1))
        form = net.formats[a]
        attrs = {"kernel": (kernel,) * 2, "strides": (stride,) * 2, "pads": (pad,) * 4, "dilations": (1, 1)}
        b = net.add("max_pool", (a,), (1, 9, h, w), form, **attrs)
        c = net.conv(b, 8, (3, 3), most=3)
        check(runner, net, net.graph(b, c), batch=2)


def test_mean_and_concat(runner: Runner) -> None:
    """A mean over 2x4 pixels is exact; channels side by side are views."""
    for precision in PACKS:
        net = Net(np.random.default_rng(7), precision, (1, 5, 2, 4))
        a, b = net.conv("x", 8), net.conv("x", 4)
        c = net.add("concat", (a, b), (1, 12, 2, 4), net.formats[a], axis=1)
        d = net.conv(c, 8, most=3)
        net.conv(d, 3, most=3)
        e = net.add("global_avg_pool", (c,), (1, 12, 1, 1), Format(4, 1.0, 0))
        check(runner, net, net.graph(c, d, e), batch=2)


def test_nothing_saturates(runner: Runner) -> None:
    """Inputs at both ends of uint8 against weights of +-127."""
    rng = np.random.default_rng(8)
    for which in range(4):
        net = Net(rng, "int8", (1, 16, 5, 8))
        net.formats["x"] = Format(4, 0.5, 0) if which % 2 else Format(4, 0.5, 100)
        y = net.conv("x", 16, (3, 3), density=1.0, scale=2.0**7)
        net.constants[net.nodes[0].attrs["weight"]] = np.sign(net.constants["w0"] + 1e-9) * 127 * np.float32(2.0**-7)
        net.scales["w0"][:] = 2.0**-7
        net.conv(y, 4, most=3)
        check(runner, net, net.graph(y), which=which, extreme=True)
        net = Net(rng, "int8", (1, 40, 1, 1))
        z = net.gemm("x", 40)
        net.constants["w0"] = np.sign(net.constants["w0"] + 1e-9) * 127 * np.float32(2.0**-7)
        net.scales["w0"][:] = 2.0**-7
        check(runner, net, net.graph(z), which=which, extreme=True)


def test_candidates_are_measured(runner: Runner) -> None:
    """What the tuner may choose is what the tests above go through."""
    shape = LayerShape(64, 64, 1, 50, 1, 0, 4)
    options = candidates(shape, Zeros(0.1, 1.0, None), runner.isa)
    assert {max(option.heights) for option in options} == {h for h, _ in runner.isa.tiles_of(4)}
    assert all(isinstance(option, Choice) and option.section in (SECTION_VALUES, 1) for option in options)
    assert candidates(replace(shape, lone=True), Zeros(1.0, 1.0, None), runner.isa) == [CHANNELS]
