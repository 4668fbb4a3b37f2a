"""Copies that turn rows and columns: all tails, several images and tasks, nothing written beside them."""

import numpy as np
import pytest

from prunus.runtime.layout import Layout
from prunus.runtime.lower.context import TURNED, Draft, turn
from prunus.runtime.program import Program
from prunus.runtime.records import PORTS, address, record
from tests.kernels.runners import Runner

SIZES = [(1, 1), (16, 16), (17, 5), (5, 17), (64, 33), (TURNED + 1, 16), (3 * TURNED, 2), (130, 100)]


@pytest.mark.parametrize("rows, columns", SIZES)
def test_exactly(runner: Runner, rows: int, columns: int) -> None:
    program = Program("net", runner.isa.target, runner.isa.lanes, False, (), (), {}, (), {})
    for images, threads, gap in ((1, 1, 0), (3, 2, 3)):
        x = np.arange(images * columns * (rows + gap), dtype=np.float32).reshape(images, columns, rows + gap)
        out = np.full((images, rows, columns + 2 * gap), -1, np.float32)
        draft = Draft(program, 1, dict[str, Layout](), {}, {})
        strides = ((out[0].size, out.shape[2]), (x[0].size, x.shape[2]))
        turn(draft, address(PORTS + 1, 0), strides[0], address(PORTS, 0), strides[1], (images, rows, columns))
        plan = np.array([number for kind, fields in draft.records for number in record(kind, **fields)], np.int64)
        nothing = np.zeros(1, np.float32)
        runner.run(plan, nothing, nothing, nothing, [x, out], 16, threads)
        np.testing.assert_array_equal(out[:, :, :columns], x[:, :, :rows].transpose(0, 2, 1))
        assert (out[:, :, columns:] == -1).all()
