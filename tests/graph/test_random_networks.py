"""Random small networks with random zeros: read, fused and compiled, they give what onnxruntime gives."""

from typing import Any
from unittest import mock

import numpy as np
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from prunus.compiler import choice, tune
from prunus.compiler.compile import compile
from prunus.graph.evaluate import evaluate
from prunus.graph.read import read
from prunus.kernels.isa import isa_of
from prunus.runtime.cpu import describe
from prunus.sparsity.project import project
from prunus.sparsity.scheme import parse
from tests.graph.models import batch_norm, ints, scalar
from tests.kernels.test_winograd import choices as winograd_choices
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run

ISA = isa_of(describe().best_target or "x86-64")
Shape = tuple[int, int, int]  # channels, height, width
ZEROS = ("", "", "unstructured", "filter", "channel", "block-row:4x8", "block-column:4x8", "bcr:4x16", "punched:4x4")
SIMPLE = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Identity", "Neg")
LAYERS = ("conv", "conv", "conv", "transpose", "pool", "pool", "simple", "norm", "pad", "slice", "split")
JOINS = ("add", "concat", "mul")


class Growing:
    """A network being drawn: values and their shapes, all at the same batch."""

    def __init__(self, draw: st.DrawFn, batch: int) -> None:
        self.draw = draw
        shape = draw(st.integers(1, 9)), draw(st.integers(1, 14)), draw(st.integers(1, 14))
        self.net = Net({"x": (batch, *shape)}, seed=draw(st.integers(0, 999)))
        self.values: list[tuple[str, Shape]] = [("x", shape)]

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def weight(self, *shape: int) -> str:
        """Weights with zeros of some scheme."""
        name = self.net.weight(*shape, zeros=0)
        array = onnx.numpy_helper.to_array(self.net.weights[-1])
        if text := self.one_of(*ZEROS):
            array = array * project(array, parse(text), self.one_of(0.3, 0.7, 0.9, 1.0) if len(array) > 1 else 0.5)
            self.net.weights[-1] = onnx.numpy_helper.from_array(array, name)
        return name

    def window(self, size: int, kernels: tuple[int, ...]) -> tuple[int, int, int, int, int] | None:
        """Kernel, stride, dilation, pads of an axis; None if it doesn't fit."""
        kernel, stride, dilation = self.one_of(*kernels), self.one_of(1, 1, 2, 3), self.one_of(1, 1, 2)
        before, after = self.number(0, kernel - 1), self.number(0, kernel - 1)
        fits = size + before + after >= (kernel - 1) * dilation + 1
        return (kernel, stride, dilation, before, after) if fits else None

    def windows(self, shape: Shape, *kernels: int) -> tuple[dict[str, Any], tuple[int, int]] | None:
        """Attributes of a window and the size of its output."""
        both = [self.window(size, kernels) for size in shape[1:]]
        if None in both:
            return None
        found = [axis for axis in both if axis is not None]
        kernel, strides, dilations, before, after = (list(column) for column in zip(*found, strict=True))
        out = [(i + b + a - (k - 1) * d - 1) // s + 1 for i, (k, s, d, b, a) in zip(shape[1:], found, strict=True)]
        attrs = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": before + after}
        return attrs, (out[0], out[1])

    def add(self, name: str, shape: Shape) -> None:
        if np.prod(shape) <= 6000:
            self.values.append((name, shape))

    def conv(self, x: str, shape: Shape) -> None:
        found = self.windows(shape, 1, 1, 2, 3, 5)
        if found is None:
            return
        attrs, (h, w) = found
        group = self.one_of(*(g for g in (1, 1, 2, 3, shape[0]) if shape[0] % g == 0))
        o = group * self.number(1, max(1, 12 // group))
        weight = self.weight(o, shape[0] // group, *attrs["kernel_shape"])
        bias = [self.net.weight(o, zeros=0)] if self.one_of(True, False) else []
        self.add(self.net.add("Conv", x, weight, *bias, group=group, **attrs), (o, h, w))

    def transpose(self, x: str, shape: Shape) -> None:
        group = self.one_of(*(g for g in (1, 1, 2, shape[0]) if shape[0] % g == 0))
        each = self.number(1, 3)
        kernel, strides, dilations = ([self.number(1, n) for _ in range(2)] for n in (3, 3, 2))
        extra = [self.number(0, s - 1) for s in strides]
        pads = [self.number(0, (k - 1) // 2) for k in kernel] * 2
        h, w = (
            (i - 1) * s + (k - 1) * d + 1 + e - 2 * p
            for i, s, k, d, e, p in zip(shape[1:], strides, kernel, dilations, extra, pads, strict=False)
        )
        if h < 1 or w < 1:
            return
        weight = self.weight(shape[0], each, *kernel)
        attrs = {"strides": strides, "dilations": dilations, "output_padding": extra, "pads": pads, "group": group}
        self.add(self.net.add("ConvTranspose", x, weight, **attrs), (each * group, h, w))

    def pool(self, x: str, shape: Shape) -> None:
        found = self.windows(shape, 1, 2, 3)
        if found is None or self.one_of(*range(5)) == 0:
            self.add(self.net.add(self.one_of("GlobalAveragePool", "GlobalMaxPool"), x), (shape[0], 1, 1))
            return
        attrs, size = found
        if self.one_of(True, False):
            self.add(self.net.add("MaxPool", x, **attrs), (shape[0], *size))
        elif attrs.pop("dilations") == [1, 1]:
            self.add(self.net.add("AveragePool", x, count_include_pad=self.one_of(0, 1), **attrs), (shape[0], *size))

    def simple(self, x: str, shape: Shape) -> None:
        kind = self.one_of(*SIMPLE, "Clip", "PRelu", "gate")
        if kind == "Clip":
            out = self.net.add("Clip", x, scalar(self.net, -0.2), scalar(self.net, 0.4))
        elif kind == "PRelu":
            out = self.net.add("PRelu", x, self.net.weight(shape[0], 1, 1, zeros=0))
        elif kind == "gate":
            out = self.net.add("Mul", x, self.net.add("Sigmoid", x))
        else:
            out = self.net.add(kind, x)
        self.add(out, shape)

    def norm(self, x: str, shape: Shape) -> None:
        self.add(batch_norm(self.net, x, shape[0]), shape)

    def pad(self, x: str, shape: Shape) -> None:
        top, left, bottom, right = (self.number(0, 2) for _ in range(4))
        value = [scalar(self.net, 0.5)] if self.one_of(*range(4)) == 0 else []
        out = self.net.add("Pad", x, ints(self.net, 0, 0, top, left, 0, 0, bottom, right), *value)
        self.add(out, (shape[0], shape[1] + top + bottom, shape[2] + left + right))

    def slice(self, x: str, shape: Shape) -> None:
        axis = self.number(0, 2)
        start = self.number(0, shape[axis] - 1)
        step = self.number(1, 2)
        out = self.net.add("Slice", x, *(ints(self.net, i) for i in (start, 10**6, axis + 1, step)))
        sizes = list(shape)
        sizes[axis] = -(-(shape[axis] - start) // step)
        self.add(out, (sizes[0], sizes[1], sizes[2]))

    def split(self, x: str, shape: Shape) -> None:
        first = self.number(0, shape[0])
        if not 0 < first < shape[0]:
            return
        names = [f"{x}.{len(self.net.nodes)}.{side}" for side in "ab"]
        sizes = [first, shape[0] - first]
        self.net.nodes.append(helper.make_node("Split", [x, ints(self.net, *sizes)], names, name=names[0], axis=1))
        for name, size in zip(names, sizes, strict=True):
            self.add(name, (size, *shape[1:]))

    def join(self, kind: str, x: str, shape: Shape) -> None:
        """With another value that fits."""
        if kind == "concat":
            alike = [v for v in self.values if v[1][1:] == shape[1:]]
            dense = self.one_of(True, False, False)  # all there is, as in a dense block
            names, shapes = zip(*(alike[-6:] if dense else [(x, shape), self.one_of(*alike)]), strict=True)
            self.add(self.net.add("Concat", *names, axis=1), (sum(its[0] for its in shapes), *shape[1:]))
            return
        fits = [name for name, its in self.values if its == shape or (kind == "mul" and its == (shape[0], 1, 1))]
        self.add(self.net.add("Add" if kind == "add" else "Mul", x, self.one_of(*fits)), shape)

    def step(self) -> None:
        recent = self.values[-1] if self.one_of(*range(3)) else self.one_of(*self.values)
        kind = self.one_of(*LAYERS, *JOINS, *JOINS)
        if kind in JOINS:
            self.join(kind, *recent)
        else:
            getattr(self, kind)(*recent)


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Up to 12 layers; the last value and perhaps one from the middle are outputs."""
    growing = Growing(draw, draw(st.sampled_from([1, 1, 2, 3])))
    for _ in range(draw(st.integers(1, 12))):
        growing.step()
    name, shape = growing.values[-1]
    if draw(st.booleans()):
        k = int(np.prod(shape))
        flat = growing.net.add("Flatten", name)
        name = growing.net.add("Gemm", flat, growing.weight(7, k), growing.net.weight(7, zeros=0), transB=1)
    outputs = [name] if name != "x" else [growing.net.add("Abs", "x")]
    middle = draw(st.sampled_from(growing.values))[0]
    if draw(st.booleans()) and middle not in (*outputs, "x"):
        outputs.append(middle)
    return growing.net.model(*outputs)


@settings(max_examples=70, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    model=networks(),
    seed=st.integers(0, 99),
    threads=st.sampled_from([1, 1, 2]),
    forced=st.none() | st.sampled_from(winograd_choices(ISA)),
)
def test_random_network(model: onnx.ModelProto, seed: int, threads: int, forced: choice.Choice | None) -> None:
    """The first candidate for each layer, or `forced` where it applies."""
    feeds = feeds_for(model, seed=seed)
    expected = onnxruntime_run(model, feeds)
    assume(all(np.isfinite(a).all() for a in expected))
    graph = read(model, fallback=False)
    with np.errstate(all="ignore"):  # values that no output needs may overflow
        values = evaluate(graph, feeds)
    assert_agrees([values[name] for name in graph.outputs], expected)

    def candidates(shape: choice.LayerShape, *rest: Any) -> list[choice.Choice]:
        return [forced] if forced and shape.tile_vectors else choice.candidates(shape, *rest)

    with mock.patch.object(tune, "candidates", candidates):
        session = compile(model, tune="off", threads=threads, fallback=None)
    assert_agrees(session.run(None, feeds), expected)
    assert_agrees(session.run(None, feeds), expected)
