"""One filter per channel, exactly, on small integers: sizes, strides, paddings, epilogues."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.compiler.choice import DEPTHWISE, Choice
from prunus.compiler.translate import Decision, Layer, spell_out, translate
from prunus.graph.evaluate import evaluate
from prunus.graph.ir import Activation, Graph, Node, Value
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from tests.kernels.runners import Runner

GUARD = 777.0
PLAIN: dict[str, Any] = {"bias": None, "activation": None, "slope": None}
ROWS = Choice("rows", (1,), 1, 1, 1, False)
PADS = {3: ((1, 1, 1, 1), (0, 1, 1, 0), (0, 0, 0, 0)), 5: ((2, 2, 2, 2), (1, 2, 2, 1), (0, 0, 3, 3))}
ACTIVATIONS = (None, Activation("relu"), Activation("clip", (-9.0, 30.0)), Activation("leaky_relu", (0.5,)), "prelu")


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float32)


def chain(rng: np.random.Generator, c: int, h: int, w: int, kernel: int, stride: int, pads: Any, act: Any) -> Graph:
    """x -> depthwise with everything an epilogue can have -> one that reads its margins."""
    oh, ow = ((n + pads[i] + pads[i + 2] - kernel) // stride + 1 for i, n in enumerate((h, w)))
    shapes = {"x": (1, c, h, w), "z": (1, c, oh, ow), "y": (1, c, oh, ow), "last": (1, c, oh, ow)}
    shapes |= {"a": shapes["x"], "b": shapes["z"]}
    constants = {"w": integers(rng, c, 1, kernel, kernel), "v": integers(rng, c, 1, 3, 3)}
    constants |= {"bias": integers(rng, c), "slope": integers(rng, c)}
    prelu = act == "prelu"
    first = {
        "weight": "w", "strides": (stride,) * 2, "pads": pads, "dilations": (1, 1), "group": c, "bias": "bias",
        "activation": Activation("prelu") if prelu else act, "slope": "slope" if prelu else None,
    }  # fmt: skip
    second = {"weight": "v", "strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1), "group": c, **PLAIN}
    nodes = (
        Node("identity", "copy x", ("x",), ("a",)), Node("identity", "copy z", ("z",), ("b",)),
        Node("conv", "first", ("a", "b"), ("y",), first), Node("conv", "second", ("y",), ("last",), second),
    )  # fmt: skip
    values = {name: Value(name, shape) for name, shape in shapes.items()}
    return spell_out(Graph("chain", ("x", "z"), ("y", "last"), nodes, values, constants, True))


def check(runner: Runner, rng: np.random.Generator, graph: Graph, batch: int, threads: int) -> None:
    def choose(layer: Layer, _: Graph) -> Decision:
        return Decision(DEPTHWISE if layer.node.name == "first" or threads > 1 else ROWS, "", "")

    program, constants = pack(translate(graph, runner.isa, choose))
    plan = make_plan(program, batch)
    feeds = {name: integers(rng, batch, *graph.values[name].shape[1:]) for name in graph.inputs}
    answers = [np.full((batch, *graph.values[name].shape[1:]), GUARD, np.float32) for name in graph.outputs]
    arena = np.full(plan.arena, GUARD, np.float32)
    runner.run(plan.records, plan.tables, constants, arena, [*feeds.values(), *answers], plan.scratch, threads)
    for i in range(batch):
        expected = evaluate(graph, {name: array[i : i + 1] for name, array in feeds.items()})
        for name, answer in zip(graph.outputs, answers, strict=True):
            assert_array_equal(answer[i : i + 1], expected[name], err_msg=f"{name} {graph.values['x'].shape}")


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_sizes(runner: Runner, kernel: int, stride: int) -> None:
    """Widths on both sides of every multiple of a vector, heights on both sides of every block of rows."""
    rng = np.random.default_rng(kernel + stride)
    slow = type(runner).__name__ == "Program"
    for i, w in enumerate([*range(kernel, 22), 31, 32, 33, 40][:: 5 if slow else 1]):
        h = kernel + i % 7
        graph = chain(rng, 1 + i % 4, h, w, kernel, stride, PADS[kernel][0], None)
        if graph.values["y"].shape[2] * graph.values["y"].shape[3] > 1:
            check(runner, rng, graph, 1 + i % 2, 1 + i % 2)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_pads_and_epilogues(runner: Runner, kernel: int, stride: int) -> None:
    rng = np.random.default_rng(9)
    for i, act in enumerate(ACTIVATIONS):
        pads = PADS[kernel][i % 3]
        check(runner, rng, chain(rng, 3, 11, 17 + i, kernel, stride, pads, act), 2, 1 + i % 2)


def test_input_from_outside(runner: Runner) -> None:
    """The caller's array has no margins: it is copied."""
    rng = np.random.default_rng(3)
    graph = chain(rng, 3, 9, 10, 3, 2, (1, 1, 1, 1), None)
    nodes = tuple(
        Node("conv", n.name, ("x",), n.outputs, n.attrs) if n.name == "first" else n
        for n in graph.nodes
        if n.op == "conv"
    )
    graph = Graph("outside", ("x",), graph.outputs, nodes, graph.values, graph.constants, True)
    check(runner, rng, graph, 2, 1)
