"""The roofline: which level holds what, what bounds a layer, and that measured limits are in the right order."""

import numpy as np
import pytest

import prunus
from prunus.runtime.program import Op, Program, Tensor
from prunus.runtime.roofline import OVERHEAD_S, Machine, machine, roofline, weight_bytes, weights_read
from tests.runtime.networks import NETWORKS, Net, feeds_for

LIMITS = Machine({1: 100e9, 2: 200e9, 4: 400e9}, ((1 << 19, 80e9), (1 << 25, 40e9), (np.inf, 10e9)))


def program(channels: int, size: int, weights: int, pack: int = 1) -> Program:
    tensors = {name: Tensor((1, channels, size, size), pack=pack) for name in ("x", "y")}
    op = Op("conv", "c", ("x",), ("y",), {"encoding": "c"})
    constants = {"c.values": np.zeros(weights, np.float32), "c.d.values": np.zeros(1000, np.float32)}
    return Program("net", "t", 8, True, ("x",), ("y",), tensors, (op,), constants)


def test_arithmetic_bounds() -> None:
    made = program(64, 56, 64 * 64)
    found = roofline(made, made.ops[0], 1, 1, LIMITS, 10e9, 64 * 64 * 4)
    assert found.bound == "compute" and found.seconds == pytest.approx(0.1)
    assert roofline(made, made.ops[0], 1, 2, LIMITS, 10e9, 64 * 64 * 4).seconds == pytest.approx(0.05)


def test_memory_bounds() -> None:
    """Weights stream from where those of the whole network lie."""
    made = program(8, 2, 1 << 20)
    near = roofline(made, made.ops[0], 1, 1, LIMITS, 1e6, 1 << 24)
    far = roofline(made, made.ops[0], 1, 1, LIMITS, 1e6, 1 << 26)
    assert near.bound == far.bound == "memory"
    assert near.seconds == pytest.approx((1 << 22) / 40e9, rel=0.01)
    assert far.seconds == pytest.approx((1 << 22) / 10e9, rel=0.01)
    assert roofline(made, made.ops[0], 1, 2, LIMITS, 1e6, 1 << 26).seconds == pytest.approx(far.seconds, rel=0.01)
    assert weight_bytes(made, made.ops[0]) == 1 << 22, "its own, not those of c.d"


def test_small_layers_are_overhead() -> None:
    made = program(4, 2, 16)
    found = roofline(made, made.ops[0], 1, 1, LIMITS, 100.0, 64)
    assert found.bound == "overhead" and found.seconds < OVERHEAD_S


def test_packed_channels_move_less_and_count_more() -> None:
    plain, quads = program(256, 56, 1), program(256, 56, 1, pack=4)
    assert roofline(plain, plain.ops[0], 1, 1, LIMITS, 1e6, 4).seconds == pytest.approx(
        4 * roofline(quads, quads.ops[0], 1, 1, LIMITS, 1e6, 4).seconds, rel=1.1
    )
    assert roofline(quads, quads.ops[0], 1, 1, LIMITS, 4e9, 4).seconds == pytest.approx(0.01)


def test_this_machine() -> None:
    session = prunus.compile(NETWORKS["residual"](), tune="off", threads=1)
    limits = machine(session._library)
    assert all(rate > 1e8 for rate in limits.operations.values())
    assert limits.operations[4] > limits.operations[1] / 2
    speeds = [speed for _, speed in limits.levels]
    assert speeds[0] > speeds[-1] > 1e8 and limits.levels[-1][0] == np.inf


def test_rows_say_how_far() -> None:
    net = Net({"x": (1, 32, 28, 28)})
    model = net.model(net.add("Relu", net.conv("x", 64, 32)))
    session = prunus.compile(model, tune="fast", threads=1)
    row = next(r for r in session.profile(feeds_for(model)) if r.op == "conv")
    assert row.bound in ("compute", "memory", "overhead")
    assert row.of_peak is not None and row.roofline is not None and 0 < row.of_peak <= row.roofline * 1.01
    said = next(r for r in session.explain() if r.op == "conv")
    assert said.roofline_ms is not None and said.roofline_ms > 0 and said.roofline is not None and said.roofline > 0
    untuned = prunus.compile(model, tune="off", threads=1).explain()
    assert next(r for r in untuned if r.op == "conv").roofline is None


def test_steps_read_their_weights_again() -> None:
    """Those of the step from the cache that holds them, those of the product over time once per block of steps."""
    tensors = {"x": Tensor((100, 1, 8)), "y": Tensor((100, 1, 16))}
    op = Op("recurrent", "g", ("x",), ("y",), {"encoding": "g", "over_time": {"encoding": "g.input", "block": 50}})
    constants = {"g.values": np.zeros(1000, np.float32), "g.input.values": np.zeros(300, np.float32)}
    made = Program("net", "t", 8, False, ("x",), ("y",), tensors, (op,), constants)
    assert weight_bytes(made, op) == 5200
    assert weights_read(made, op, 1 << 30) == [(400000, 4000), (2400, 1 << 30)]
