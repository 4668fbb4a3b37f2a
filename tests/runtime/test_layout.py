"""Where elements lie: no two on one place, margins where readers rely on them, planes an odd number of lines apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.arrange import whole_vectors
from prunus.runtime.layout import LINE, Layout, c_strides, channels_of, contiguous, odd_lines, planar, up

SIZES = st.integers(1, 5)
MARGIN = st.integers(0, 4)


def places(layout: Layout) -> np.ndarray:
    """Offset of each element in the buffer, in the tensor's shape."""
    where = np.full(layout.shape, layout.first)
    for axis, (n, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        where = where + (np.arange(n) * stride).reshape([-1 if a == axis else 1 for a in range(len(layout.shape))])
    return where


@st.composite
def planes(draw: st.DrawFn) -> tuple[Layout, tuple[int, int, int, int]]:
    """Planar layouts with margins, and those margins."""
    shape = draw(st.tuples(SIZES, SIZES, st.integers(1, 40), st.integers(1, 40)))
    margins = draw(st.tuples(MARGIN, MARGIN, MARGIN, MARGIN))
    pitch = shape[3] + max(margins[1], margins[3]) + draw(st.integers(0, 3))
    return planar(shape, pitch, *margins), margins


@given(planes())
def test_planes(made: tuple[Layout, tuple[int, int, int, int]]) -> None:
    layout, (top, left, bottom, right) = made
    n, c, h, w = layout.shape
    where = places(layout)
    assert len(np.unique(where)) == where.size
    assert where.min() >= 0 and where.max() < layout.size
    assert layout.plane % LINE == 0 and (layout.plane // LINE) % 2 == 1
    assert layout.first % LINE == 0
    assert layout.batch == c * layout.plane and layout.size == n * layout.batch
    # whole vectors of any width that end after the last pixel don't reach the next plane's pixels
    assert up((h - 1) * layout.pitch + w, LINE) <= layout.plane
    # every shifted window of the margins stays in the buffer, and in zeros that the plane owns
    assert layout.front == top * layout.pitch + left <= layout.first
    assert layout.first + (h - 1) * layout.pitch + w + bottom * layout.pitch + right <= layout.plane
    assert layout.tail == bottom * layout.pitch + right


@given(planes())
def test_margins_hold_no_pixel(made: tuple[Layout, tuple[int, int, int, int]]) -> None:
    """What a window reads outside of the image is never another pixel: rows above and below, columns left and right."""
    layout, (top, left, bottom, right) = made
    h, w = layout.shape[2:]
    pixels = set(places(layout).ravel().tolist())
    y, x = np.mgrid[-top : h + bottom, -left : w + right]
    outside = (y < 0) | (y >= h) | (x < 0) | (x >= w)
    read = (layout.first + y * layout.pitch + x)[outside]
    assert pixels.isdisjoint(read.tolist())


@given(planes(), st.data())
def test_channels_of_a_planar_tensor(made: tuple[Layout, object], data: st.DataObject) -> None:
    parent = made[0]
    n, c, h, w = parent.shape
    first = data.draw(st.integers(0, c - 1))
    count = data.draw(st.integers(1, c - first))
    view = channels_of(parent, (n, count, h, w), first)
    np.testing.assert_array_equal(places(view), places(parent)[:, first : first + count])


@given(st.lists(st.integers(0, 5), max_size=6))
def test_contiguous(shape: list[int]) -> None:
    layout = contiguous(tuple(shape))
    assert layout.contiguous
    assert layout.strides == tuple(s // 4 for s in np.zeros([max(n, 1) for n in shape], np.float32).strides)
    assert layout.size >= int(np.prod(shape))
    np.testing.assert_array_equal(places(layout).ravel(), np.arange(int(np.prod(shape))))


def test_planar_without_margins_may_be_contiguous() -> None:
    assert planar((1, 1, 4, 4), 4, 0, 0, 0, 0).contiguous
    assert not planar((1, 2, 4, 8), 8, 0, 0, 0, 0).contiguous  # 32 pixels are an even number of lines
    assert not planar((1, 2, 4, 4), 5, 0, 0, 0, 1).contiguous
    assert not planar((1, 1, 1, 4), 5, 0, 0, 0, 1).contiguous  # a reader wants a zero behind


def test_strides_of_c_order() -> None:
    assert c_strides((2, 3, 4)) == (12, 4, 1)
    assert c_strides(()) == ()


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 16, 64]))
def test_rounding_up(value: int, multiple: int) -> None:
    assert value <= up(value, multiple) < value + multiple
    assert up(value, multiple) % multiple == 0
    lines = odd_lines(value)
    assert value <= lines < value + 2 * LINE and lines // LINE % 2 == 1


def test_pitches_of_whole_vectors() -> None:
    """Only where no plane of the group takes a vector more."""
    assert whole_vectors(15, [(1, 4, 14, 14)], 16) == 16
    assert whole_vectors(15, [(1, 4, 14, 14)], 8) == 15
    assert whole_vectors(29, [(1, 4, 28, 28)], 16) == 29
    assert whole_vectors(15, [(1, 4, 14, 14), (1, 4, 3, 2)], 16) == 15
    assert whole_vectors(16, [(1, 4, 28, 16)], 16) == 16
