"""The records "pool" and "global_pool" against numpy: narrow and wide planes, nothing read behind the last pixel, every
element of the output written, and none beside it."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from prunus.runtime.records import ARENA, PORTS, address, record
from tests.kernels.runners import Runner

Array = NDArray[np.float32]
GUARD = 777.0
WINDOWS = {  # kernel, stride, dilation, padding (of rows and columns alike)
    "halves": ((2, 2), (2, 2), (1, 1), (0, 0)), "stem": ((3, 3), (2, 2), (1, 1), (1, 1)),
    "beside": ((3, 3), (1, 1), (1, 1), (1, 1)), "flat": ((1, 3), (1, 2), (1, 1), (0, 1)),
    "dilated": ((2, 2), (2, 3), (2, 2), (0, 0)), "padded": ((2, 2), (2, 2), (1, 1), (1, 1)),
}  # fmt: skip
SIZES = ((7, 7), (14, 14), (5, 3), (6, 33), (9, 28), (4, 67))


def planes_of(rng: np.random.Generator, shape: tuple[int, ...], pitch: int, gap: int) -> tuple[Array, Array, int]:
    """Values with one NaN and one negative zero, the memory that they lie in, and the distance of planes."""
    n, c, h, w = shape
    values = rng.standard_normal(shape).astype(np.float32)
    values[0, 0, h // 2, w // 2], values[-1, -1, 0, 0] = np.nan, -0.0
    plane = h * pitch + gap
    memory = np.full((n, c, plane), GUARD, np.float32)
    memory[:, :, : h * pitch].reshape(n, c, h, pitch)[..., :w] = values
    return values, memory.ravel()[: memory.size - plane + (h - 1) * pitch + w].copy(), plane


def pooled(x: Array, average: bool, window: tuple[tuple[int, int], ...], shape: tuple[int, int]) -> Array:
    """By numpy, padding not counted."""
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = window
    h, w = x.shape[2:]
    out = np.empty((*x.shape[:2], *shape), np.float32)
    for oy in range(shape[0]):
        for ox in range(shape[1]):
            rows = [y for k in range(kh) if 0 <= (y := oy * sh - ph + k * dh) < h]
            columns = [i for k in range(kw) if 0 <= (i := ox * sw - pw + k * dw) < w]
            some = x[:, :, rows][..., columns]
            out[:, :, oy, ox] = some.mean((2, 3)) if average else some.max((2, 3))
    return out


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("what", WINDOWS)
def test_windows(runner: Runner, what: str, average: bool) -> None:
    window = WINDOWS[what]
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = window
    rng = np.random.default_rng(len(what))
    for h, w in SIZES:
        images, planes, pitch = 2, 3, w + 2
        x, memory, plane = planes_of(rng, (images, planes, h, w), pitch, 1)
        oh = (h + 2 * ph - (kh - 1) * dh - 1) // sh + 1
        ow = (w + 2 * pw - (kw - 1) * dw - 1) // sw + 1
        out_pitch = ow + 1
        out_plane = oh * out_pitch + 5
        run = record(
            "pool", average=int(average), include_pad=0, x=address(PORTS, 0), out=address(ARENA, 0), images=images,
            planes=planes, x_batch=planes * plane, x_plane=plane, x_pitch=pitch, out_batch=planes * out_plane,
            out_plane=out_plane, out_pitch=out_pitch, h=h, w=w, oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw,
            top=ph, left=pw, bottom=ph, right=pw,
        )  # fmt: skip
        expected = np.full((images, planes, out_plane), GUARD, np.float32)
        expected[:, :, : oh * out_pitch].reshape(images, planes, oh, out_pitch)[..., :ow] = pooled(
            x, average, window, (oh, ow)
        )
        for threads in (1, 2):
            arena = np.full(expected.size, GUARD, np.float32)
            scratch = 2 * max(w + pw, (ow - 1) * sw + (kw - 1) * dw + 1) + 64
            runner.run(np.array(run, np.int64), *_none(), arena, [memory], scratch, threads)
            if average:
                assert_allclose(arena, expected.ravel(), rtol=1e-5, atol=1e-6)
            else:
                assert_array_equal(arena, expected.ravel())


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("gap", [0, 1])
def test_whole_planes(runner: Runner, gap: int, average: bool) -> None:
    rng = np.random.default_rng(gap)
    for h, w in (*SIZES, (1, 1), (3, 3), (2, 16)):
        images, planes = 2, 19
        x, memory, plane = planes_of(rng, (images, planes, h, w), w + gap, gap)
        run = record(
            "global_pool", average=int(average), x=address(PORTS, 0), out=address(ARENA, 0), images=images,
            planes=planes, x_batch=planes * plane, x_plane=plane, x_pitch=w + gap, out_batch=planes, out_plane=1, h=h,
            w=w,
        )  # fmt: skip
        expected = x.mean((2, 3), dtype=np.float64) if average else x.max((2, 3))
        arena = np.full(expected.size + 16, GUARD, np.float32)
        runner.run(np.array(run, np.int64), *_none(), arena, [memory], 16, 2)
        assert_allclose(arena[: expected.size], expected.ravel(), rtol=1e-4, atol=1e-6)
        assert (arena[expected.size :] == GUARD).all()


def _none() -> tuple[NDArray[Any], NDArray[Any]]:
    """No tables and no constants."""
    return np.zeros(1, np.int32), np.zeros(1, np.float32)
