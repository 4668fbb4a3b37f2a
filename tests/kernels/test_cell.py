"""The step of recurrent layers against numpy in double precision, on every ISA: what its gates are, tails, lengths."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from prunus.runtime.records import ACTIVATIONS, ARENA, CELLS, NOWHERE, PORTS, TABLES, address, float_bits, record
from tests.kernels.runners import Runner

SUMS = {"rnn": 1, "gru": 4, "gru_reset": 3, "gru_after": 3, "lstm": 4}
USUAL = {"f": ("sigmoid",), "g": ("tanh",), "e": ("tanh",)}
OTHER = {"f": ("hard_sigmoid", 0.2, 0.5), "g": ("softsign",), "e": ("scaled_tanh", 0.5, 2.0)}
FUNCTION: dict[str, Any] = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda a, p, q: np.clip(a * p + q, 0, 1),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "scaled_tanh": lambda a, p, q: p * np.tanh(q * a),
}
ERROR = 5e-7  # absolute, of a state of size 1, as cell.h says


def reference(kind: str, s: Any, h: Any, c: Any, gated: Any, gates: Any, clip: float, forget: bool) -> tuple[Any, Any]:
    f, g, e = (
        lambda a, k=gates[key], most=np.inf if key == "e" else clip: FUNCTION[k[0]](np.clip(a, -most, most), *k[1:])
        for key in "fge"
    )
    s = np.split(s.astype(np.float64), SUMS[kind], axis=1)
    with np.errstate(over="ignore"):
        match kind:
            case "gru":
                z = f(s[0])
                return (1 - z) * g(s[2] + f(s[1]) * s[3]) + z * h, c
            case "gru_after":
                z = f(s[0])
                return (1 - z) * g(gated) + z * h, c
            case "lstm":
                take = f(s[0])
                c = (1 - take if forget else f(s[2])) * c + take * g(s[3])
                return f(s[1]) * e(c), c
            case _:
                return f(s[0]), c


class Step:
    """A cell record with random numbers around it."""

    def __init__(self, kind: str, n: int, h: int, size: float = 3.0) -> None:
        rng = np.random.default_rng((n, h))
        self.kind, self.n, self.h = kind, n, h
        self.sums = (rng.standard_normal((n, SUMS[kind] * h)) * size).astype(np.float32)
        self.state, self.c, self.gated = (rng.uniform(-1, 1, (n, h)).astype(np.float32) for _ in range(3))

    def run(
        self, runner: Runner, gates: Any, clip: float = np.inf, forget: bool = False, threads: int = 1, **fields: int
    ) -> tuple[Any, Any, Any, Any]:
        n, h = self.n, self.h
        arrays = [self.sums, np.c_[self.state, self.state], self.c, self.gated]  # what isn't in front isn't touched
        places = np.cumsum([0, *(array.size for array in arrays)])
        arena = np.concatenate([*(array.ravel() for array in arrays), np.zeros(64, np.float32)])
        out = np.full((n, h + 1), 777, np.float32)
        for key in "fge":
            numbers = [*gates[key][1:], 0.0, 0.0]
            fields |= {key: ACTIVATIONS[gates[key][0]]}
            fields |= {f"{key}_p{i}": float_bits(numbers[i]) for i in range(2)}
        sums, state, c, gated = (address(ARENA, int(place)) for place in places[:4])
        given = {"lengths": NOWHERE, **fields}
        tables = np.array([2, 0, 1, 3], np.int32)
        plan = record(
            "cell", function=CELLS[self.kind], images=n, h=h, sums=sums, sums_batch=SUMS[self.kind] * h, state=state,
            state_batch=2 * h, c=c if self.kind == "lstm" else NOWHERE, c_batch=h, gated=gated, gated_batch=h,
            out=address(PORTS, 0), out_batch=h + 1, clip=float_bits(clip), input_forget=int(forget), **given,
        )  # fmt: skip
        runner.run(
            np.array(plan, np.int64), tables.view(np.float32), np.zeros(16, np.float32), arena, [out], 16, threads
        )
        pieces = [arena[a:b] for a, b in pairwise(places)]
        both = pieces[1].reshape(n, 2 * h)
        np.testing.assert_array_equal(both[:, h:], self.state)
        assert (out[:, h] == 777).all()
        return out[:, :h], both[:, :h], pieces[2].reshape(n, h), pieces[3].reshape(n, h)


@pytest.mark.parametrize("kind", ["rnn", "gru", "gru_after", "lstm"])
@pytest.mark.parametrize("gates, clip, forget", [(USUAL, np.inf, False), (USUAL, 0.5, True), (OTHER, 2.0, False)])
def test_matches_double_precision(runner: Runner, kind: str, gates: Any, clip: float, forget: bool) -> None:
    for n, h in product((1, 3), (1, 16, 37, 300)):
        step = Step(kind, n, h, 6.0)
        out, state, c, _ = step.run(runner, gates, clip, forget, threads=1 + (n > 1))
        wanted, wanted_c = reference(kind, step.sums, step.state, step.c, step.gated, gates, clip, forget)
        np.testing.assert_array_equal(out, state)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=ERROR)
        np.testing.assert_allclose(c, wanted_c, rtol=0, atol=2 * ERROR)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("size", [1e-4, 30.0, 1e4, 1e30, np.inf])
def test_small_and_large(runner: Runner, kind: str, size: float) -> None:
    step = Step(kind, 1, 64)
    step.sums = np.where(step.sums > 0, 1, -1).astype(np.float32) * np.float32(size)
    out, _, c, _ = step.run(runner, USUAL)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted, wanted_c = reference(kind, step.sums, step.state, step.c, step.gated, USUAL, np.inf, False)
    good = ~np.isnan(wanted)
    np.testing.assert_allclose(out[good], wanted[good], rtol=0, atol=ERROR)
    np.testing.assert_allclose(c[good], wanted_c[good], rtol=0, atol=2 * ERROR)


@pytest.mark.parametrize("kind", ["rnn", "gru", "gru_after", "lstm"])
@pytest.mark.parametrize("gates", [USUAL, OTHER])
def test_nan_stays_nan(runner: Runner, kind: str, gates: Any) -> None:
    step = Step(kind, 1, 35)
    bad = np.array([0x7FC00002, 0xFFC00001, 0x7FFFFFFF], np.uint32).view(np.float32)
    step.sums[:, [3, 17, 34]] = bad
    out, *_ = step.run(runner, gates)
    wanted = np.zeros(35, bool)
    wanted[[3, 17, 34]] = True
    np.testing.assert_array_equal(np.isnan(out[0]), wanted)


def test_reset(runner: Runner) -> None:
    step = Step("gru_reset", 2, 21)
    *_, gated = step.run(runner, USUAL)
    wanted = FUNCTION["sigmoid"](step.sums[:, 21:42].astype(np.float64)) * step.state
    np.testing.assert_allclose(gated, wanted, rtol=0, atol=ERROR)


@pytest.mark.parametrize("last", [0, 1])
def test_lengths(runner: Runner, last: int) -> None:
    """Lengths 2, 0, 1, 3; step 1 is computed for the first and the last."""
    step = Step("lstm", 4, 19)
    free = step.run(runner, USUAL)
    out, state, c, _ = step.run(runner, USUAL, lengths=address(TABLES, 0), step=1, last=last)
    for image in (0, 3):
        np.testing.assert_array_equal(out[image], free[0][image])
    np.testing.assert_array_equal(out[1:3], 0)
    np.testing.assert_array_equal(state[2], step.state[2])
    np.testing.assert_array_equal(state[1], 0 * step.state[1] if last else step.state[1])
    np.testing.assert_array_equal(c[1], 0 * step.c[1] if last else step.c[1])
