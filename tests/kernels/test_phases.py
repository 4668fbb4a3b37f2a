"""The record "phases" against numpy: every element of the output written, and none beside it."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from prunus.runtime.records import ARENA, PORTS, TABLES, address, record
from tests.kernels.runners import Runner

GUARD = 777.0


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2), (3, 2), (2, 5)])
def test_planes_are_taken_apart(runner: Runner, stride: tuple[int, int], step: int) -> None:
    rng = np.random.default_rng(sum(stride))
    (sh, sw), images = stride, 2
    for planes, h, w in ((3, 1, 1), (19, 2, 7), (3, 9, 16), (20, 5, 14), (3, 8, 37)):
        x = rng.standard_normal((images, planes, h + 1, w * step + 2)).astype(np.float32)
        used = [(py, px) for py in range(sh) for px in range(sw)]
        pitch, lead = -(-w // sw) + 2, 16
        plane = lead + (-(-h // sh) + 2) * pitch + 5
        size = images * planes * len(used) * plane
        table = [(py, px, 0, (h - 1 - py) // sh, 0, (w - 1 - px) // sw) for py, px in used]
        run = record(
            "phases", x=address(PORTS, 0), x_batch=x[0].size, x_plane=x[0, 0].size, x_pitch=x.shape[3], x_step=step,
            out=address(ARENA, 0), out_batch=planes * len(used) * plane, plane=plane, pitch=pitch, lead=lead,
            images=images, planes=planes, sh=sh, sw=sw, n_phases=len(used), table=address(TABLES, 0),
        )  # fmt: skip
        arena = np.full(size + 16, GUARD, np.float32)
        tables = np.array(table, np.int32).ravel()
        for threads in (1, 2):
            runner.run(np.array(run, np.int64), tables, np.zeros(1, np.float32), arena, [x], 16, threads)
            expected = np.zeros((images, planes, len(used), plane), np.float32)
            for number, (py, px) in enumerate(used):
                part = x[:, :, py:h:sh, px * step : w * step : sw * step]
                for row in range(part.shape[2]):
                    start = lead + row * pitch
                    expected[:, :, number, start : start + part.shape[3]] = part[:, :, row]
            assert_array_equal(arena[:size], expected.ravel())
            assert (arena[size:] == GUARD).all()
