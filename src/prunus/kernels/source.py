"""The kernel library's source: hand-written C beside this file, and a table of the micro-kernels of one ISA.

Symbols read prunus_<dtype>_<op>_<tile>, tile being rows x vectors: prunus_f32_group_4x3.
"""

from importlib.resources import files
from itertools import product

from prunus.kernels.isa import LANES_TILES, Isa
from prunus.runtime.records import APART_HEIGHT, LANES_STEPS, LANES_WHOLE, c_header

SOURCES = (
    "vector.h", "words.h", "activation.h", "group.h", "gemv.h", "packed.h", "repack.h", "depthwise.h", "place.h",
    "threads.h", "run.h", "layer.h", "lanes.h", "strided.h", "pool.h", "phases.h", "winograd.h", "cell.h", "spans.h",
    "executor.c",
)  # fmt: skip
# channels per word -> dtype in symbols, macros of the micro-kernels
PACKS = {
    1: ("f32", "PRUNUS_GROUP", "PRUNUS_GEMV({u}, {name})"),
    2: ("bf16", "PRUNUS_PAIRS", "PRUNUS_GEMV_PACKED(PAIRS, {u}, vf, dot_pairs, {name})"),
    4: ("u8", "PRUNUS_QUADS", "PRUNUS_GEMV_PACKED(QUADS, {u}, vi, dot_quads, {name})"),
}
# bytes per weight -> its C type and what loads a vector of them, where what flows stays float32
HELD = {2: ("uint16_t", "load_bf16"), 1: ("int8_t", "load_int8")}


def sources(isa: Isa) -> dict[str, str]:
    """File name -> text of everything that is compiled for `isa`; executor.c is the unit."""
    folder = files("prunus.kernels") / "c"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in SOURCES}
    return texts | {"records.h": c_header(), "table.h": table(isa), "lanes_table.h": lanes_table(isa)}


def table(isa: Isa) -> str:
    """Text of table.h: one instance of each micro-kernel per height and number of vectors, and how to find them by
    channels per word, height and vectors; from APART_HEIGHT on for rows that have columns of their own."""
    tiles = {pack: [(r, v) for r, most in isa.tiles_of(pack) for v in range(1, most + 1)] for pack in PACKS}
    heights = [height // isa.lanes for height in isa.gemv_heights() if height >= isa.lanes]
    lines = [
        "// Written by prunus.kernels.source: the micro-kernels of " + isa.target,
        "#pragma once",
        '#include "gemv.h"',
        '#include "packed.h"',
    ]
    groups, gemvs = [], []
    for pack, (dtype, group, gemv) in PACKS.items():
        lines += [f"{group}({r}, {v}, prunus_{dtype}_group_{r}x{v})" for r, v in tiles[pack]]
        lines += [f"{gemv.format(u=u, name=f'prunus_{dtype}_gemv_{u}')}" for u in heights]
        groups += [f"  [{pack}][{r}][{v}] = prunus_{dtype}_group_{r}x{v}," for r, v in tiles[pack]]
        gemvs += [f"  [{pack}][{u * isa.lanes}] = prunus_{dtype}_gemv_{u}," for u in heights]
        gemvs.append(f"  [{pack}][1] = prunus_{dtype}_gemv_row,")
    apart = [(r, v) for r, most in isa.apart for v in range(1, most + 1)]
    lines += [f"PRUNUS_APART({r}, {v}, prunus_f32_apart_{r}x{v})" for r, v in apart]
    groups += [f"  [1][{APART_HEIGHT + r}][{v}] = prunus_f32_apart_{r}x{v}," for r, v in apart]
    if (half := isa.lanes // 2) in isa.gemv_heights():
        lines.append("PRUNUS_GEMV_HALF(prunus_f32_gemv_half)")
        gemvs.append(f"  [1][{half}] = prunus_f32_gemv_half,")
    held = []
    for n_bytes, (of, loads) in HELD.items():
        lines += [f"PRUNUS_GEMV_HELD({of}, {loads}, {u}, prunus_held_{n_bytes}_gemv_{u})" for u in heights]
        held += [f"  [{n_bytes}][{u * isa.lanes}] = prunus_held_{n_bytes}_gemv_{u}," for u in heights]
        held.append(f"  [{n_bytes}][1] = prunus_held_{n_bytes}_gemv_row,")
    tallest = APART_HEIGHT + max(r for r, _ in apart)
    widest = max(v for some in (*tiles.values(), apart) for _, v in some)
    packs = max(PACKS) + 1
    lines.append(f"static prunus_group_kernel *const prunus_group_kernels[{packs}][{tallest + 1}][{widest + 1}] = {{")
    lines += [*groups, "};"]
    lines.append(f"static prunus_group_kernel *const prunus_gemv_kernels[{packs}][{isa.gemv_heights()[0] + 1}] = {{")
    lines += [*gemvs, "};"]
    size = f"[{max(HELD) + 1}][{isa.gemv_heights()[0] + 1}]"
    lines += [f"static prunus_group_kernel *const prunus_gemv_held_kernels{size} = {{", *held, "};"]
    return "\n".join(lines) + "\n"


def lanes_table(isa: Isa) -> str:
    """Text of lanes_table.h: the micro-kernels of small maps by step, lines, pixels and height in half vectors, 0 for
    single rows, and for each number of pixels the next smaller one."""
    lines, found = [f"// Written by prunus.kernels.source: the kernels of small maps of {isa.target}"], []
    for step, (high, wide) in product(LANES_STEPS, LANES_TILES):
        cuts = int((high, wide) in LANES_WHOLE)
        for height in isa.lanes_heights(high * wide) if cuts or step == 1 else ():
            name = f"prunus_f32_lanes_{height}_{high}x{wide}_by_{step}"
            sizes = f"{high}, {wide}, {step}, {cuts}, {name}"
            if height >= isa.lanes:
                lines.append(f"PRUNUS_LANES({height // isa.lanes}, {sizes})")
            elif height > 1:
                lines.append(f"PRUNUS_LANES_HALF({sizes})")
            else:
                lines.append(f"PRUNUS_LANES_ROW({high}, {wide}, {step}, {name})")
            found.append(f"  [{step}][{high}][{wide}][{2 * height // isa.lanes}] = {name},")
    most_high, most_wide = (max(tile[axis] for tile in LANES_TILES) for axis in (0, 1))
    sizes = f"[{max(LANES_STEPS) + 1}][{most_high + 1}][{most_wide + 1}][9]"
    less = [max((w for h, w in LANES_TILES if h == 1 and w < wide), default=1) for wide in range(most_wide + 1)]
    lines += [f"static prunus_group_kernel *const prunus_lanes_kernels{sizes} = {{", *found, "};"]
    lines.append(f"static const int8_t prunus_lanes_less[] = {{{', '.join(map(str, less))}}};")
    return "\n".join(lines) + "\n"
