"""Depthwise convolution exactly, on small integers: every size of block and tail, both strides, padding of all sides,
and what the next layer relies on: zeros around the output."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.compiler.choice import Choice
from prunus.compiler.translate import Decision, Layer, translate
from prunus.graph.ir import Activation, Graph, Node, Value
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from tests.kernels.runners import Runner
from tests.kernels.test_activation import REFERENCE

GUARD = 777.0
WINDOWS = tuple(product((3, 5), (1, 2)))  # kernel, stride
Pads = tuple[int, int, int, int]  # top, left, bottom, right
ACTIVATIONS = (None, Activation("relu"), Activation("clip", (-9.0, 20.0)), Activation("leaky_relu", (0.5,)), "prelu")
ROWS = Choice("rows", (1,), 1, 60000, 1, False)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(np.float32)


def direct(x: np.ndarray, weight: np.ndarray, pads: Pads, stride: int) -> np.ndarray:
    """In double precision; filter c sees channel c // filters per channel."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    windows = np.repeat(windows, len(weight) // x.shape[1], axis=1)
    return np.einsum("nchwij,cij->nchw", windows, weight[:, 0].astype(np.float64))


def activated(y: np.ndarray, activation: Any, slope: np.ndarray) -> np.ndarray:
    if activation is None:
        return y
    if activation == "prelu":
        return np.where(y < 0, y * slope[:, None, None], y)
    if activation.kind == "clip":
        return np.clip(y, *activation.params)
    if activation.kind == "leaky_relu":
        return np.where(y < 0, y * activation.params[0], y)
    return REFERENCE[activation.kind](y)


def check(
    runner: Runner, kernel: int, stride: int, size: tuple[int, int], pads: Pads, *, channels: int = 3, filters: int = 1,
    batch: int = 1, threads: int = 1, per_task: int = 2, bias: bool = True, residual: bool = False,
    activation: Any = None, copied: bool = True,
) -> None:  # fmt: skip
    """x -> depthwise (with what an epilogue can have) -> a 3x3 convolution of rows that reads its margins. `copied`: x
    is first brought into the arena, where it has margins; else the depthwise layer makes a copy itself."""
    rng = np.random.default_rng([kernel, stride, *size, *pads, channels])
    o = channels * filters
    h, w = (
        (n + before + after - kernel) // stride + 1 for n, before, after in zip(size, pads[:2], pads[2:], strict=True)
    )
    weights = {"w": integers(rng, o, 1, kernel, kernel), "v": integers(rng, 2, o, 3, 3)}
    weights |= {"bias": integers(rng, o), "slope": integers(rng, o)}
    prelu = activation == "prelu"
    first = {
        "weight": "w", "pads": pads, "strides": (stride, stride), "dilations": (1, 1), "group": channels,
        "bias": "bias" if bias else None, "activation": Activation("prelu") if prelu else activation,
        "slope": "slope" if prelu else None,
    }  # fmt: skip
    second = {"weight": "v", "pads": (1, 1, 1, 1), "strides": (1, 1), "dilations": (1, 1), "group": 1}
    second |= {"bias": None, "activation": None, "slope": None}
    shapes = {"x": (1, channels, *size), "a": (1, channels, *size), "y": (1, o, h, w), "last": (1, 2, h, w)}
    nodes = [Node("identity", "in", ("x",), ("a",))] if copied else []
    if residual:
        shapes |= {"z": (1, o, h, w), "b": (1, o, h, w)}
        nodes.append(Node("identity", "residual", ("z",), ("b",)))
    inputs = ("a" if copied else "x", *(("b",) if residual else ()))
    nodes += [Node("conv", "first", inputs, ("y",), first), Node("conv", "second", ("y",), ("last",), second)]
    ports = ("x", "z") if residual else ("x",)
    graph = Graph(
        "pair", ports, ("y", "last"), tuple(nodes), {n: Value(n, s) for n, s in shapes.items()}, weights, True
    )

    def decide(layer: Layer, _: Graph) -> Decision:
        return Decision(
            Choice("depthwise", (1,), 1, 1, per_task, False) if layer.node.name == "first" else ROWS, "", ""
        )

    program, constants = pack(translate(graph, runner.isa, decide))
    plan = make_plan(program, batch)
    feeds = {name: integers(rng, batch, *shapes[name][1:]) for name in ports}
    answers = [np.full((batch, *shapes[name][1:]), GUARD, np.float32) for name in ("y", "last")]
    arena = np.full(plan.arena, np.nan, np.float32)  # what no record writes must not be read, or be masked
    runner.run(plan.records, plan.tables, constants, arena, [*feeds.values(), *answers], plan.scratch, threads)
    y = direct(feeds["x"], weights["w"], pads, stride) + (weights["bias"][:, None, None] if bias else 0)
    y = activated(y + (feeds["z"] if residual else 0), activation, weights["slope"])
    about = f"{kernel}x{kernel} stride {stride}, {size}, pads {pads}, {channels} x {filters}, batch {batch}"
    assert_array_equal(answers[0], y, err_msg=about)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    assert_array_equal(answers[1], np.einsum("nchwij,ocij->nohw", windows, weights["v"]), err_msg=about)


def is_slow(runner: Runner) -> bool:
    return type(runner).__name__ == "Program"


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_every_size(runner: Runner, kernel: int, stride: int) -> None:
    """Blocks of 4, 2 and 1 rows, overlapping ones; rows shorter than a vector, of one and of several, with tails."""
    half, lanes = kernel // 2, runner.isa.lanes
    widths = sorted(
        {1, 2, 3, lanes - 1, lanes, lanes + 1, 2 * lanes, 2 * lanes + 3, 3 * lanes, 3 * lanes + 1, 5 * lanes - 1}
    )
    heights = (1, 2, 3, 4, 5, 7, 8, 11)
    for i, (h, w) in enumerate(product(heights, widths)):
        if (
            i % (11 if is_slow(runner) else 3) == 0
        ):  # both lists' lengths have no common divisor with these: all are seen
            check(runner, kernel, stride, (h * stride, w * stride), (half,) * 4)


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
@pytest.mark.parametrize("copied", [True, False])
def test_padding_of_all_sides(runner: Runner, kernel: int, stride: int, copied: bool) -> None:
    for pads in ((0, 0, 0, 0), (1, 0, 0, 2), (0, 2, 1, 0), (0, 0, 1, 1), (2, 1, 0, 1), (3, 4, 3, 4)):
        for size in ((kernel, kernel + 1), (9, 14), (13, 19)):
            check(runner, kernel, stride, size, pads, copied=copied)


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_epilogue(runner: Runner, kernel: int, stride: int) -> None:
    for i, activation in enumerate(ACTIVATIONS):
        for size, bias, residual in (((7, 7), True, True), ((10, 30), False, True), ((9, 18), i % 2 > 0, False)):
            check(
                runner, kernel, stride, size, (kernel // 2,) * 4, bias=bias, residual=residual, activation=activation,
                batch=1 + i % 2,
            )  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_filters_per_channel_images_and_threads(runner: Runner, kernel: int, stride: int) -> None:
    for channels, filters, batch, threads, per_task in (
        (4, 2, 1, 2, 3),
        (2, 3, 3, 2, 1),
        (7, 1, 2, 3, 4),
        (5, 1, 1, 1, 9),
    ):
        check(
            runner, kernel, stride, (8, 11), (1, 1, 1, 1), channels=channels, filters=filters, batch=batch,
            threads=threads, per_task=per_task,
        )  # fmt: skip
