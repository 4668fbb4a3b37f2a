"""F(2x2, 3x3) exactly: filters are multiples of 4, so that every transformed filter is an integer in float32.
F(4x4, 4x4) has thirds and fifths, and is as near to a direct sum as rounding lets it be."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from prunus.compiler.choice import Choice
from prunus.compiler.translate import Decision, translate
from prunus.graph.ir import Activation, Graph, Node, Value
from prunus.kernels.isa import Isa
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from tests.kernels.runners import Runner
from tests.kernels.test_activation import REFERENCE

GUARD = 777.0
NEAR = 3e-5  # of the largest output, of F(4x4, 4x4)
Pads = tuple[int, int, int, int]  # top, left, bottom, right
PADS: tuple[Pads, ...] = ((1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 2), (0, 2, 2, 1), (1, 0, 0, 1))
WIDE_PADS: tuple[Pads, ...] = ((3, 3, 3, 3), (0, 0, 0, 0), (2, 3, 2, 1), (1, 0, 3, 3))
ACTIVATIONS = (None, Activation("relu"), Activation("clip", (-9.0, 50.0)), Activation("leaky_relu", (0.5,)), "prelu")


def choices(isa: Isa) -> list[Choice]:
    """Every height of row groups, narrow and wide tiles, one strip and many, both ways to deal out tasks."""
    found = []
    for height, most in isa.tiles:
        for tile in sorted({1, most}):
            heights = tuple(h for h, v in sorted(isa.tiles, reverse=True) if h <= height and v >= tile)
            for strip, section, outer in ((100, 1, True), (1, 1, False), (2, 3, True), (100, 2, False)):
                found.append(Choice("winograd", heights, tile, section * height, strip, outer))
    return found


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(np.float32)


def direct(x: np.ndarray, weight: np.ndarray, pads: Pads, stride: int = 1) -> np.ndarray:
    """Convolution in double precision."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64))


def epilogue(y: np.ndarray, activation: Any, slope: np.ndarray) -> np.ndarray:
    if activation is None:
        return y
    if activation == "prelu":
        return np.where(y < 0, y * slope[:, None, None], y)
    if activation.kind == "clip":
        return np.clip(y, *activation.params)
    if activation.kind == "leaky_relu":
        return np.where(y < 0, y * activation.params[0], y)
    return REFERENCE[activation.kind](y)


class Chain:
    """x -> convolution with everything an epilogue can have -> another that reads its margins. The first one is 3x3 at
    stride 1, or 7x7 at stride 2."""

    def __init__(
        self, rng: np.random.Generator, channels: int, filters: int, h: int, w: int, pads: Pads, wide: bool = False
    ) -> None:
        self.shapes = {"x": (1, channels, h, w)}
        self.kernel, self.stride = (7, 2) if wide else (3, 1)
        sizes = (h + pads[0] + pads[2], w + pads[1] + pads[3])
        out = tuple((size - self.kernel) // self.stride + 1 for size in sizes)
        self.shapes |= {"y": (1, filters, *out), "z": (1, filters, *out), "last": (1, 3, *out)}
        self.pads = pads
        filters_shape = (filters, channels, self.kernel, self.kernel)
        self.weights = {"w": 4 * integers(rng, *filters_shape), "v": 4 * integers(rng, 3, filters, 3, 3)}
        self.weights |= {"bias": integers(rng, filters), "slope": integers(rng, filters)}

    def graph(self, bias: bool, residual: bool, activation: Any) -> Graph:
        shapes = dict(self.shapes)
        conv = {"strides": (1, 1), "dilations": (1, 1), "group": 1}
        plain = {"bias": None, "activation": None, "slope": None}
        prelu = activation == "prelu"
        first = {"weight": "w", "pads": self.pads, **conv, "bias": "bias" if bias else None}
        first["strides"] = (self.stride, self.stride)
        first |= {"activation": Activation("prelu") if prelu else activation, "slope": "slope" if prelu else None}
        inputs = ("x", "z") if residual else ("x",)
        nodes = [Node("identity", f"copy {name}", (name,), (f"{name}.in",)) for name in inputs]
        shapes |= {f"{name}.in": shapes[name] for name in inputs}
        nodes.append(Node("conv", "first", tuple(f"{name}.in" for name in inputs), ("y",), first))
        nodes.append(Node("conv", "second", ("y",), ("last",), {"weight": "v", "pads": (1, 1, 1, 1), **conv, **plain}))
        values = {name: Value(name, shape) for name, shape in shapes.items()}
        return Graph("chain", inputs, ("y", "last"), tuple(nodes), values, self.weights, True)

    def check(
        self, runner: Runner, choice: Choice, rng: np.random.Generator, *, batch: int = 1, threads: int = 1,
        bias: bool = True, residual: bool = False, activation: Any = None,
    ) -> None:  # fmt: skip
        program, constants = pack(
            translate(self.graph(bias, residual, activation), runner.isa, lambda *_: Decision(choice, "", ""))
        )
        plan = make_plan(program, batch)
        feeds = {name: integers(rng, batch, *self.shapes[name][1:]) for name in program.inputs}
        answers = [np.full((batch, *self.shapes[name][1:]), GUARD, np.float32) for name in ("y", "last")]
        arena = np.full(plan.arena, GUARD, np.float32)
        ports = [*feeds.values(), *answers]
        runner.run(plan.records, plan.tables, constants, arena, ports, plan.scratch, threads)
        y = direct(feeds["x"], self.weights["w"], self.pads, self.stride)
        y += self.weights["bias"][:, None, None] if bias else 0
        sums = y + (feeds["z"] if residual else 0)
        self.compare(
            answers, epilogue(sums, activation, self.weights["slope"]), float(np.abs(sums).max()),
            f"{choice} {choice.section} {self.shapes} {self.pads} batch {batch}",
        )  # fmt: skip

    def compare(self, answers: list[np.ndarray], y: np.ndarray, size: float, about: str = "") -> None:
        """What both convolutions answer with y, the first one's output; size: of its sums."""
        if self.stride == 1:
            assert_array_equal(answers[0], y, err_msg=about)
            assert_array_equal(answers[1], direct(y, self.weights["v"], (1, 1, 1, 1)), err_msg=about)
        else:
            assert_allclose(answers[0], y, rtol=0, atol=NEAR * max(size, 1), err_msg=about)
            last = direct(answers[0], self.weights["v"], (1, 1, 1, 1))
            assert_allclose(answers[1], last, rtol=0, atol=NEAR * max(np.abs(last).max(), 1), err_msg=about)


def is_slow(runner: Runner) -> bool:
    return type(runner).__name__ == "Program"


@pytest.mark.parametrize("wide", [False, True])
def test_every_choice_is_exact(runner: Runner, wide: bool) -> None:
    rng = np.random.default_rng(0)
    for i, choice in enumerate(choices(runner.isa)):
        if is_slow(runner) and i % 5:
            continue
        h, w = (int(n) for n in rng.integers(2, 18, 2) * (2 if wide else 1) + (2 if wide else 0))
        pads = (3, 3, 3, 3) if wide else (1, 1, 1, 1)
        chain = Chain(rng, int(rng.integers(1, 10)), int(rng.integers(1, 30)), h, w, pads, wide)
        chain.check(runner, choice, rng, threads=1 + i % 2)


@pytest.mark.parametrize("pads", PADS)
def test_every_size_is_exact(runner: Runner, pads: Pads) -> None:
    """Tiles that hang over, rows of less than a vector, strips that begin inside a row."""
    rng = np.random.default_rng(sum(pads))
    some = choices(runner.isa)
    for h in (1, 2, 3, 4, 7, 8, 17):
        for w in (1, 2, 3, 5, 8, 13, 17) if not is_slow(runner) else (1 + h % 3, 14):
            if h + pads[0] + pads[2] < 3 or w + pads[1] + pads[3] < 3:
                continue
            if (h + pads[0] + pads[2] - 2) * (w + pads[1] + pads[3] - 2) == 1:
                continue
            chain = Chain(rng, int(rng.integers(1, 10)), int(rng.integers(1, 10)), h, w, pads)
            choice = some[int(rng.integers(len(some)))]
            chain.check(runner, choice, rng, batch=int(rng.integers(1, 4)), threads=int(rng.integers(1, 3)))


@pytest.mark.parametrize("pads", WIDE_PADS)
def test_every_size_over_phases(runner: Runner, pads: Pads) -> None:
    """7x7 at stride 2: likewise, and paddings that turn the phases round."""
    rng = np.random.default_rng(sum(pads))
    some = choices(runner.isa)
    for oh in (1, 2, 3, 4, 5, 9):
        for ow in (1, 2, 4, 7, 17, 4 * runner.isa.lanes + 5) if not is_slow(runner) else (1 + oh % 3, 22):
            h, w = 2 * oh + 5 - pads[0] - pads[2] + oh % 2, 2 * ow + 5 - pads[1] - pads[3] + ow % 2
            if min(h, w) < 1 or oh * ow == 1:
                continue
            chain = Chain(rng, int(rng.integers(1, 5)), int(rng.integers(1, 10)), h, w, pads, True)
            choice = some[int(rng.integers(len(some)))]
            chain.check(runner, choice, rng, batch=int(rng.integers(1, 4)), threads=int(rng.integers(1, 3)))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_epilogue_is_exact(runner: Runner, activation: Any, residual: bool, wide: bool) -> None:
    """Bias, residual and activation, in this order."""
    rng = np.random.default_rng(5)
    some = choices(runner.isa)
    h, w, pads = (12, 8 * runner.isa.lanes + 9, (3, 3, 3, 3)) if wide else (6, 2 * runner.isa.lanes + 3, (1, 1, 1, 1))
    for bias in (False, True):
        for choice in some[:4] if not is_slow(runner) else some[4:5]:
            chain = Chain(rng, 5, 7, h, w, pads, wide)
            chain.check(runner, choice, rng, batch=2, threads=2, bias=bias, residual=residual, activation=activation)


@pytest.mark.parametrize("wide", [False, True])
def test_garbage_beyond_the_image_is_not_read(runner: Runner, wide: bool) -> None:
    """Tiles that hang over read what isn't part of the image; it must not reach a pixel, not even NaN."""
    rng = np.random.default_rng(6)
    chain = Chain(rng, 3, 4, 13 if wide else 7, 21 if wide else 9, (3,) * 4 if wide else (1,) * 4, wide)
    program, constants = pack(
        translate(chain.graph(True, False, None), runner.isa, lambda *_: Decision(choices(runner.isa)[0], "", ""))
    )
    plan = make_plan(program)
    x = integers(rng, *chain.shapes["x"])
    answers = [np.zeros(chain.shapes[name], np.float32) for name in ("y", "last")]
    arena = np.full(plan.arena, np.nan, np.float32)
    runner.run(plan.records, plan.tables, constants, arena, [x, *answers], plan.scratch, 1)
    y = direct(x, chain.weights["w"], chain.pads, chain.stride) + chain.weights["bias"][:, None, None]
    chain.compare(answers, y, float(np.abs(y).max()))
