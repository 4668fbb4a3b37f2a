"""Where the elements of an activation lie.

Feature maps are planar: each channel is a plane of rows at a pitch of W + the widest horizontal padding that a reader
needs, so the gap after a row is the right padding of that row and the left padding of the next; zero rows lie above and
below. A shifted window is then one offset, and a vector may run across rows. Planes start on a cache line and are an
odd number of lines apart, or a column of the same pixel in all channels would fall into few cache sets. Everything else
is contiguous.
"""

from dataclasses import dataclass

LINE = 16  # elements per cache line; also the longest vector

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Strides in elements per axis; `first` is the offset of element 0 from the start of the buffer of `size`."""

    shape: Shape
    strides: tuple[int, ...]
    first: int
    size: int
    # of planar layouts: zeros before pixel 0, and zeros after the last pixel of a plane, that readers rely on
    front: int = 0
    tail: int = 0

    @property
    def contiguous(self) -> bool:
        """Elements lie in C order without gaps, and no reader relies on zeros around them."""
        return not (self.first or self.front or self.tail) and all(
            stride == expected or n == 1
            for n, stride, expected in zip(self.shape, self.strides, c_strides(self.shape), strict=True)
        )

    @property
    def pitch(self) -> int:
        """Distance of rows."""
        return self.strides[2]

    @property
    def plane(self) -> int:
        """Distance of channels."""
        return self.strides[1]

    @property
    def batch(self) -> int:
        """Distance of images."""
        return self.strides[0]


def c_strides(shape: Shape) -> tuple[int, ...]:
    """Strides of C order, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def contiguous(shape: Shape) -> Layout:
    """C order without gaps."""
    strides = c_strides(shape)
    return Layout(shape, strides, 0, strides[0] * max(shape[0], 1) if shape else 1)


def planar(shape: Shape, pitch: int, top: int, left: int, bottom: int, right: int, *, in_bands: bool = False) -> Layout:
    """[n, c, h, w] in planes with zero margins of that many rows and columns; pitch >= w + max(left, right).
    `in_bands`: vectors may begin at any row, and the last one reach so much further."""
    n, c, h, w = shape
    front = top * pitch + left
    lead = up(front, LINE)
    pixels = (h - 1) * pitch + w
    tail = bottom * pitch + right
    plane = odd_lines(lead + max(pixels + tail, up(pixels, LINE) + (LINE if in_bands else 0)))
    return Layout(shape, (c * plane, plane, pitch, 1), lead, n * c * plane, front, tail)


def channels_of(parent: Layout, shape: Shape, channel: int) -> Layout:
    """The layout of a view of some channels of a planar tensor, from `channel` on."""
    return Layout(shape, parent.strides, parent.first + channel * parent.plane, parent.size, parent.front, parent.tail)


def up(value: int, multiple: int) -> int:
    """`value` rounded up."""
    return -(-value // multiple) * multiple


def odd_lines(elements: int) -> int:
    """At least `elements`, and an odd number of cache lines."""
    lines = -(-elements // LINE)
    return (lines | 1) * LINE
