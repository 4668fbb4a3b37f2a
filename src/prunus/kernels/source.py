"""The kernel library's source: hand-written C beside this file, and a table of the micro-kernels of one ISA.

Symbols read prunus_<dtype>_<op>_<tile>, tile being rows x vectors: prunus_f32_group_4x3.
"""

from importlib.resources import files

from prunus.kernels.isa import Isa
from prunus.runtime.records import c_header

SOURCES = (
    "vector.h", "activation.h", "group.h", "gemv.h", "threads.h", "run.h", "layer.h", "strided.h", "pool.h", "phases.h",
    "winograd.h", "executor.c",
)  # fmt: skip


def sources(isa: Isa) -> dict[str, str]:
    """File name -> text of everything that is compiled for `isa`; executor.c is the unit."""
    folder = files("prunus.kernels") / "c"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in SOURCES}
    return texts | {"records.h": c_header(), "table.h": table(isa)}


def table(isa: Isa) -> str:
    """Text of table.h: one instance of the micro-kernel per height and number of vectors, and how to find them."""
    tiles = [(rows, vectors) for rows, most in isa.tiles for vectors in range(1, most + 1)]
    heights = [height // isa.lanes for height in isa.gemv_heights if height > 1]
    lines = [
        "// Written by prunus.kernels.source: the micro-kernels of " + isa.target,
        "#pragma once",
        '#include "gemv.h"',
    ]
    lines += [f"PRUNUS_GROUP({r}, {v}, prunus_f32_group_{r}x{v})" for r, v in tiles]
    lines += [f"PRUNUS_GEMV({u}, prunus_f32_gemv_{u})" for u in heights]
    tallest, widest = max(r for r, _ in tiles), max(v for _, v in tiles)
    lines.append(f"static prunus_group_kernel *const prunus_group_kernels[{tallest + 1}][{widest + 1}] = {{")
    lines += [f"  [{r}][{v}] = prunus_f32_group_{r}x{v}," for r, v in tiles]
    lines.append(f"}};\nstatic prunus_group_kernel *const prunus_gemv_kernels[{isa.gemv_heights[0] + 1}] = {{")
    lines += [f"  [{u * isa.lanes}] = prunus_f32_gemv_{u}," for u in heights]
    lines.append("  [1] = prunus_f32_gemv_row,\n};")
    return "\n".join(lines) + "\n"
