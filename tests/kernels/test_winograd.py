"""F(2x2, 3x3) exactly: filters are multiples of 4, so that every transformed filter is an integer in float32."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.compiler.choice import Choice
from prunus.compiler.translate import Decision, translate
from prunus.graph.ir import Activation, Graph, Node, Value
from prunus.kernels.isa import Isa
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from tests.kernels.runners import Runner
from tests.kernels.test_activation import REFERENCE

GUARD = 777.0
Pads = tuple[int, int, int, int]  # top, left, bottom, right
PADS: tuple[Pads, ...] = ((1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 2), (0, 2, 2, 1), (1, 0, 0, 1))
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


def direct(x: np.ndarray, weight: np.ndarray, pads: Pads) -> np.ndarray:
    """3x3 convolution in double precision."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
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
    """x -> convolution with everything an epilogue can have -> another that reads its margins."""

    def __init__(self, rng: np.random.Generator, channels: int, filters: int, h: int, w: int, pads: Pads) -> None:
        self.shapes = {"x": (1, channels, h, w)}
        out = (h + pads[0] + pads[2] - 2, w + pads[1] + pads[3] - 2)
        self.shapes |= {"y": (1, filters, *out), "z": (1, filters, *out), "last": (1, 3, *out)}
        self.pads = pads
        self.weights = {"w": 4 * integers(rng, filters, channels, 3, 3), "v": 4 * integers(rng, 3, filters, 3, 3)}
        self.weights |= {"bias": integers(rng, filters), "slope": integers(rng, filters)}

    def graph(self, bias: bool, residual: bool, activation: Any) -> Graph:
        shapes = dict(self.shapes)
        conv = {"strides": (1, 1), "dilations": (1, 1), "group": 1}
        plain = {"bias": None, "activation": None, "slope": None}
        prelu = activation == "prelu"
        first = {"weight": "w", "pads": self.pads, **conv, "bias": "bias" if bias else None}
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
        y = direct(feeds["x"], self.weights["w"], self.pads)
        y += self.weights["bias"][:, None, None] if bias else 0
        y = epilogue(y + (feeds["z"] if residual else 0), activation, self.weights["slope"])
        about = f"{choice} {choice.section} {self.shapes} {self.pads} batch {batch}"
        assert_array_equal(answers[0], y, err_msg=about)
        assert_array_equal(answers[1], direct(y, self.weights["v"], (1, 1, 1, 1)), err_msg=about)


def is_slow(runner: Runner) -> bool:
    return type(runner).__name__ == "Program"


def test_every_choice_is_exact(runner: Runner) -> None:
    rng = np.random.default_rng(0)
    for i, choice in enumerate(choices(runner.isa)):
        if is_slow(runner) and i % 5:
            continue
        h, w = (int(n) for n in rng.integers(2, 18, 2))
        chain = Chain(rng, int(rng.integers(1, 10)), int(rng.integers(1, 30)), h, w, (1, 1, 1, 1))
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


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_epilogue_is_exact(runner: Runner, activation: Any, residual: bool) -> None:
    """Bias, residual and activation, in this order."""
    rng = np.random.default_rng(5)
    some = choices(runner.isa)
    for bias in (False, True):
        for choice in some[:4] if not is_slow(runner) else some[4:5]:
            chain = Chain(rng, 5, 7, 6, 2 * runner.isa.lanes + 3, (1, 1, 1, 1))
            chain.check(runner, choice, rng, batch=2, threads=2, bias=bias, residual=residual, activation=activation)


def test_garbage_beyond_the_image_is_not_read(runner: Runner) -> None:
    """Tiles that hang over read what isn't part of the image; it must not reach a pixel, not even NaN."""
    rng = np.random.default_rng(6)
    chain = Chain(rng, 3, 4, 7, 9, (1, 1, 1, 1))
    program, constants = pack(
        translate(chain.graph(True, False, None), runner.isa, lambda *_: Decision(choices(runner.isa)[0], "", ""))
    )
    plan = make_plan(program)
    x = integers(rng, *chain.shapes["x"])
    answers = [np.zeros(chain.shapes[name], np.float32) for name in ("y", "last")]
    arena = np.full(plan.arena, np.nan, np.float32)
    runner.run(plan.records, plan.tables, constants, arena, [x, *answers], plan.scratch, 1)
    y = direct(x, chain.weights["w"], chain.pads) + chain.weights["bias"][:, None, None]
    assert_array_equal(answers[0], y)
    assert_array_equal(answers[1], direct(y, chain.weights["v"], (1, 1, 1, 1)))
