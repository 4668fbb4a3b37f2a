"""Products with single vectors whose weights are held as bfloat16 or int8, exactly: integers that both hold, tails,
rows that keep nothing, several images and threads, sections forwards and backwards."""

from dataclasses import replace

import numpy as np
import pytest

from prunus.compiler.choice import Choice
from prunus.compiler.held import HELD, hold
from prunus.compiler.translate import Decision, translate
from prunus.graph.ir import Graph, Node, Value
from prunus.runtime.artefact import pack
from prunus.runtime.plan import make_plan
from prunus.runtime.records import KINDS, RECORDS
from tests.kernels.runners import Runner
from tests.kernels.test_spans import SIZES, zeros_of

FORMS = (None, *HELD)


def weights_of(zeros: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Up to 127, which each row that keeps anything has once: a step of int8 is then 1."""
    kept = zeros_of(zeros, m, k, rng) != 0
    weights = (rng.integers(1, 127, (m, k)) * rng.choice([-1, 1], (m, k)) * kept).astype(np.float32)
    first = kept.argmax(axis=1)
    weights[np.arange(m), first] = np.where(kept.any(axis=1), 127, 0)
    return weights


def multiply(
    runner: Runner, weights: np.ndarray, form: str | None, choice: Choice, x: np.ndarray, *, threads: int,
    backwards: bool,
) -> np.ndarray:  # fmt: skip
    (m, k), n = weights.shape, len(x)
    attrs = {"weight": "w", "bias": "b", "activation": None, "slope": None, "held": form}
    values = {"x": Value("x", (n, k)), "y": Value("y", (n, m))}
    constants = {"w": weights, "b": np.arange(m, dtype=np.float32) % 7}
    graph = Graph("net", ("x",), ("y",), (Node("gemm", "fc", ("x",), ("y",), attrs),), values, constants)
    program, space = pack(translate(graph, runner.isa, lambda *_: Decision(choice, "", "")))
    plan = make_plan(program)
    records, at, found = plan.records.copy(), 0, 0
    while at < len(records):
        for kind in ("gemv", "spans"):
            if records[at] == KINDS[kind]:
                records[at + 2 + RECORDS[kind].index("backwards")] = backwards
                assert records[at + 2 + RECORDS[kind].index("value_bytes")] == HELD.get(form or "", 4)
                found += 1
        at += records[at + 1]
    assert found == 1
    out = np.full((n, m), 777, np.float32)
    arena = np.zeros(plan.arena, np.float32)
    runner.run(records, plan.tables, space, arena, [x, out], plan.scratch, threads)
    return out


@pytest.mark.parametrize("zeros", ["nothing", "all", "any", "blocks", "shared"])
@pytest.mark.parametrize("form", FORMS)
def test_exactly(runner: Runner, zeros: str, form: str | None) -> None:
    rng = np.random.default_rng(0)
    heights = runner.isa.gemv_heights(0)
    choices = [Choice("spans", (1,), 1, section, 1, False) for section in (100, 10**9)]
    choices += [Choice("rows", some, 1, 64, 1, False) for some in (heights, heights[-2:], (1,))]
    choices.append(Choice("rows", heights, 1, 64, 1, False, union=runner.isa.lanes))
    for m, k in SIZES:
        weights = weights_of(zeros, m, k, rng)
        for i, choice in enumerate(choices):
            x = rng.integers(-3, 4, (1 + 2 * (i % 2), k)).astype(np.float32)
            expected = x @ weights.T + np.arange(m, dtype=np.float32) % 7
            for threads, backwards in ((1, i % 2 == 0), (2, True)):
                got = multiply(runner, weights, form, choice, x, threads=threads, backwards=backwards)
                np.testing.assert_array_equal(got, expected, err_msg=f"{m} x {k}, {choice}")


@pytest.mark.parametrize("form", HELD)
def test_rounding(form: str) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((9, 50)).astype(np.float32) * (rng.random((9, 50)) < 0.5)
    weights[3] = 0
    held = hold(form, weights)
    assert held is not None
    step = np.abs(weights).max(axis=1, keepdims=True) / 127
    bound = np.abs(weights) / 256 if form == "bf16" else np.broadcast_to(step / 2 * 1.001, weights.shape)
    assert (np.abs(held.rounded(weights) - weights) <= bound).all()
    np.testing.assert_array_equal(held.encodable(weights) != 0, weights != 0)
    again = held.values(held.encodable(weights))
    assert again.itemsize == held.n_bytes
    if held.scales is not None:
        np.testing.assert_array_equal(again * held.scales[:, None], held.rounded(weights))


def test_what_rounds_to_zero_keeps_its_place() -> None:
    """Rows that share columns go on sharing them."""
    weights = np.full((4, 6), 1e-4, np.float32)
    weights[:, 0] = 1
    held = hold("int8", weights)
    assert held is not None and np.count_nonzero(held.values(held.encodable(weights))) == 4
    assert (held.encodable(weights) != 0).all()
    assert replace(held, scales=None).n_bytes == 1
