"""Element-wise functions of the C library against numpy in double precision, on every ISA."""

import math

import numpy as np
import pytest

from prunus.runtime.records import ACTIVATIONS, NOWHERE, PORTS, address, float_bits, record
from tests.kernels.runners import Runner

_erf = np.vectorize(math.erf)
REFERENCE = {
    "none": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "clip": lambda a: np.clip(a, -1, 2),
    "leaky_relu": lambda a: np.where(a < 0, -1 * a, a),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "hard_sigmoid": lambda a: np.clip(-1 * a + 2, 0, 1),
    "hard_swish": lambda a: a * np.clip(a / 6 + 0.5, 0, 1),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "elu": lambda a: np.where(a < 0, -1 * np.expm1(a), a),
    "softplus": lambda a: np.logaddexp(a, 0),
    "exp": np.exp,
    "sqrt": lambda a: np.sqrt(np.where(a < 0, np.nan, a)),
    "abs": np.abs,
    "neg": lambda a: -a,
    "erf": _erf,
    "affine": lambda a: -1 * a + 2,
    "thresholded_relu": lambda a: np.where(a > -1, a, 0),
    "scaled_tanh": lambda a: -1 * np.tanh(2 * a),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "gelu": lambda a: 0.5 * a * (1 + _erf(a / math.sqrt(2))),
}
P0, P1 = -1.0, 2.0  # parameters: low and high of clip, alpha and beta of the others
TOLERANCE = 4e-6  # relative to the larger of 0.1 and the value; gelu has the worst: erf to 1.5e-7 times a / 2


def apply(runner: Runner, kind: str, x: np.ndarray) -> np.ndarray:
    n = x.size
    out = np.full(n, 777, np.float32)
    plan = record(
        "map", out=address(PORTS + 1, 0), x=address(PORTS, 0), scale=NOWHERE, shift=NOWHERE, slope=NOWHERE,
        activation=ACTIVATIONS[kind], p0=float_bits(P0), p1=float_bits(P1), size5=n, in_stride5=1, out_stride5=1,
    )  # fmt: skip
    nothing = np.zeros(16, np.float32)
    runner.run(np.array(plan, np.int64), nothing, nothing, nothing.copy(), [x.copy(), out], 16, 1)
    return out


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_matches_double_precision(runner: Runner, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-20, 20, 4001), rng.standard_normal(1000) * 1e-3, [0, 80, -80, 3]])
    x = x.astype(np.float32)[: 5000 - 3]
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = REFERENCE[kind](x.astype(np.float64))
    got = apply(runner, kind, x)
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    good = ~np.isnan(wanted)
    error = np.abs(got[good] - wanted[good]) / np.maximum(np.abs(wanted[good]), 0.1)
    assert error.max() <= TOLERANCE, f"{kind} at {x[good][error.argmax()]}: {error.max()}"


@pytest.mark.parametrize("kind", ["relu", "clip", "sigmoid", "tanh", "exp", "silu", "gelu"])
def test_nan_stays_nan(runner: Runner, kind: str) -> None:
    x = np.array([np.nan, 1.0, np.nan], np.float32)
    assert np.array_equal(np.isnan(apply(runner, kind, x)), [True, False, True])
