"""The ISAs that kernels are built for. An ISA is a small record; adding a row builds and tests every kernel for it."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Isa:
    """How one target's kernel library is built.

    `tiles` gives, per height R of a row group, the most vectors V of pixels: R * V sums, the weights or pixels held
    beside them and one more register must fit in the register file, or sums spill and speed halves.
    """

    target: str  # a key of prunus.runtime.cpu.TARGETS
    triple: str  # of the packaged clang, and how gcc or a system clang is told the same
    vector_bytes: int
    flags: tuple[str, ...]  # for the packaged clang
    system_flags: tuple[str, ...]  # for gcc and clang
    tiles: tuple[tuple[int, int], ...]
    apart: tuple[tuple[int, int], ...]  # likewise where each row has columns of its own
    packed_tiles: tuple[tuple[int, int], ...]  # likewise over packed channels; heights are multiples of 4
    bf16: bool = False  # has an instruction for pairs of bfloat16: without one float32 is as fast
    saturates: bool = False  # sums two int8 products in 16 bits: weights are split where those could overflow

    def tiles_of(self, pack: int) -> tuple[tuple[int, int], ...]:
        """Tiles of micro-kernels over words of `pack` channels; pairs also come in height 2."""
        if pack == 1:
            return self.tiles
        return ((2, self.packed_tiles[0][1]), *self.packed_tiles) if pack == 2 else self.packed_tiles

    @property
    def lanes(self) -> int:
        """float32 values per vector."""
        return self.vector_bytes // 4

    def gemv_heights(self, pack: int = 1) -> tuple[int, ...]:
        """Heights of row groups where the lanes are rows: 4, 2 and 1 vectors, half of one (float32, where that is 4
        rows or more), and single rows. `pack` 0: weights are held in fewer bits."""
        half = (self.lanes // 2,) if pack == 1 and self.lanes >= 8 else ()
        return (4 * self.lanes, 2 * self.lanes, self.lanes, *half, 1)

    def lanes_heights(self, pixels: int) -> tuple[int, ...]:
        """Heights of row groups over so many pixels of a small map, where the lanes are rows: a sum for each pixel and
        vector, the weights and an input are in registers. Half a vector, where that is 4 rows or more, and single
        rows."""
        most = 32 if self.tiles is _REGISTERS_32 else 16
        vectors = [u * self.lanes for u in (4, 2, 1) if u * pixels + u + 1 < most]
        half = (self.lanes // 2,) if vectors and self.lanes >= 8 else ()
        return (*vectors, *half, 1)


# lines and pixels of tiles of small maps, where the lanes are rows; one line of each width
LANES_TILES: Final = ((1, 1), (1, 2), (1, 3), (1, 4), (1, 7), (2, 2), (2, 4), (3, 3), (2, 7), (4, 4))

_REGISTERS_16: Final = ((1, 10), (2, 6), (3, 4), (4, 3), (5, 2), (6, 2), (7, 1), (8, 1))
_REGISTERS_32: Final = ((1, 12), (2, 12), (3, 8), (4, 6), (5, 5), (6, 4), (7, 3), (8, 3), (12, 2), (16, 1))
_APART_16: Final = ((2, 6),)
_APART_32: Final = ((2, 12), (4, 6))

# sums, pixels, a weight, and where no single instruction adds them up two more
_PACKED_16: Final = ((4, 2), (8, 1))
_PACKED_32: Final = ((4, 5), (8, 3), (12, 2), (16, 1))

ISAS: Final = (
    Isa(
        "x86-64-avx512-bf16", "x86_64-linux-gnu.2.17", 64,
        ("-mcpu=x86_64_v4+avx512vnni+avx512bf16", "-mprefer-vector-width=512"),
        ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mprefer-vector-width=512"), _REGISTERS_32,
        _APART_32, _PACKED_32, bf16=True,
    ),
    Isa(
        "x86-64-avx512-vnni", "x86_64-linux-gnu.2.17", 64,
        ("-mcpu=x86_64_v4+avx512vnni", "-mprefer-vector-width=512"),
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"), _REGISTERS_32, _APART_32, _PACKED_32,
    ),
    Isa(
        "x86-64-avx512", "x86_64-linux-gnu.2.17", 64, ("-mcpu=x86_64_v4", "-mprefer-vector-width=512"),
        ("-march=x86-64-v4", "-mprefer-vector-width=512"), _REGISTERS_32, _APART_32, _PACKED_32, saturates=True,
    ),
    Isa(
        "x86-64-avx2", "x86_64-linux-gnu.2.17", 32, ("-mcpu=x86_64_v3",), ("-march=x86-64-v3",), _REGISTERS_16,
        _APART_16, _PACKED_16, saturates=True,
    ),
    Isa(
        "x86-64", "x86_64-linux-gnu.2.17", 16, ("-mcpu=x86_64",), ("-march=x86-64",), _REGISTERS_16,
        _APART_16, _PACKED_16,
    ),
    Isa(
        "aarch64-i8mm", "aarch64-linux-gnu.2.17", 16, ("-mcpu=generic+dotprod+i8mm+bf16",),
        ("-march=armv8.2-a+dotprod+i8mm+bf16",), _REGISTERS_32, _APART_32, _PACKED_32, bf16=True,
    ),
    Isa("aarch64-neon", "aarch64-linux-gnu.2.17", 16, (), ("-march=armv8-a",), _REGISTERS_32, _APART_32, _PACKED_32),
)  # fmt: skip


def isa_of(target: str) -> Isa:
    """The ISA of a target's name, which must be one of ISAS."""
    return next(isa for isa in ISAS if isa.target == target)
