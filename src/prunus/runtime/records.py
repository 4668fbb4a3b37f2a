"""The records of a plan: what the C executor reads. Each is a row of int64: its kind, then its fields in this order.

This table is the only definition: the header that the C sources include is written from it (`c_header`). An address is
`space << 40 | element`, in elements of 4 bytes; NOWHERE is none. Floats travel as their bits.
"""

import struct
from typing import Final

ARENA: Final = 0  # activations
CONSTANTS: Final = 1  # what the artefact holds
TABLES: Final = 2  # what the planner derived: offsets, groups, masks
PORTS: Final = 3  # PORTS + i: the caller's array number i, inputs first
NOWHERE: Final = -1
RANK: Final = 6  # axes of a strided record

_AXES = tuple(range(RANK))
_SIZES = tuple(f"size{i}" for i in _AXES)
_DEFAULTS = dict.fromkeys((*_SIZES, *(f"reduced{i}" for i in _AXES), "pack"), 1) | {"value_bytes": 4}
_OUT = tuple(f"out_stride{i}" for i in _AXES)
_IN = tuple(f"in_stride{i}" for i in _AXES)
_OTHER = tuple(f"other_stride{i}" for i in _AXES)
_EPILOGUE = ("bias", "slope", "activation", "p0", "p1")
# packed channels: `scale` per row of sums; words of least and largest bytes and of padding; see kernels/c/packed.h
_PACKED = ("pack", "scale", "residual_scale", "post_scale", "post_shift", "low", "high", "pad")
_GROUPS = ("weights", "offsets", "groups", "calls", "parts", "sections", "n_sections")
# strips of tiles of `side` x `side` pixels: `strip` in vectors; `pitch` of channels and `position` of tile positions in
# transformed input
_TILES = (
    "side", "images", "x", "x_batch", "x_plane", "x_pitch", "channels", "h", "w", "top", "left", "strip", "pitch",
    "position",
)  # fmt: skip

# lines and pixels of the tiles of "lanes" that may be a whole map: what would only meet padding is left out, and the
# input may be read in steps of LANES_STEPS
LANES_WHOLE: Final = ((2, 2), (3, 3), (4, 4))
LANES_STEPS: Final = (1, 2)
APART_HEIGHT: Final = 16  # plus a height: the micro-kernels for groups whose rows have columns of their own

RECORDS: Final[dict[str, tuple[str, ...]]] = {
    # bodies of records behind the fields, a task each; `bodies` lists where each begins, from this record on, and the
    # first of its `slots`; `slots` in all
    "chain": ("bodies", "n_bodies", "slots"),
    # row groups over a flat run of pixels; see kernels/c/group.h. Before a tile is computed, lines of the next one are
    # asked for in `ahead_planes` planes of the input, `ahead_plane` apart, `ahead` elements behind its first pixel
    "conv": (
        "images", "x", "x_batch", "out", "out_batch", "plane", "residual", "residual_batch", "residual_plane",
        *_GROUPS, *_EPILOGUE, "mask", "vectors", "tile", "tiles_per_task", "pixels_outer", "rows", "sums_in_out",
        *_PACKED, "out_real", "ahead_planes", "ahead_plane", "ahead",
    ),
    # row groups with the rows as lanes, one vector of inputs per image; see kernels/c/gemv.h. `narrow`: offsets are
    # uint16, two in an integer of the table; `backwards`: the last section first, so that what a near cache holds of
    # the weights is read before it is gone
    "gemv": (
        "images", "x", "x_batch", "out", "out_batch", "row_stride", "residual", "residual_batch", *_GROUPS,
        *_EPILOGUE, *_PACKED, "out_real", "narrow", "backwards", "value_bytes",
    ),
    # row groups with the rows as lanes, over `lines` of `width` pixels, up to `tile_lines` x `tile` of them side
    # by side, and the input's `step` apart; see kernels/c/lanes.h
    "lanes": (
        "images", "x", "x_batch", "x_pitch", "out", "out_batch", "out_pitch", "plane", "residual", "residual_batch",
        "residual_plane", *_GROUPS, *_EPILOGUE, *_PACKED, "lines", "width", "tile_lines", "tile", "step",
    ),
    # by tiles of 2x2 pixels (3x3 at stride 1) or 4x4 (7x7 at stride 2, over phase planes); `ready` is what
    # "winograd_input" made; see kernels/c/winograd.h
    "winograd": (
        *_TILES, "out", "out_batch", "plane", "out_pitch", "residual", "residual_batch", "residual_plane", *_GROUPS,
        *_EPILOGUE, "rows", "section_rows", "tile", "sums_position", "ready",
    ),
    "winograd_input": (*_TILES, "out", "channels_per_task"),
    # filters of one channel, `kernel` x `kernel`, over padded planes; `x` is the window of pixel (0, 0), `room` what a
    # plane of the output holds from pixel 0 on, `per_input` filters per channel; see kernels/c/depthwise.h
    "depthwise": (
        "images", "planes", "x", "x_batch", "x_plane", "x_pitch", "out", "out_batch", "plane", "pitch", "h", "w",
        "room", "residual", "residual_batch", "residual_plane", "residual_pitch", "weights", *_EPILOGUE, "kernel",
        "stride", "per_input", "planes_per_task",
    ),
    # zero `front` elements before pixel 0 and `tail` from `tail_start` of each plane
    "margins": ("out", "images", "out_batch", "planes", "plane", "front", "tail_start", "tail", "pad"),
    "fill": ("out", "count", "value"),
    # planes taken apart by their place inside the stride; see kernels/c/phases.h
    "phases": (
        "x", "x_batch", "x_plane", "x_pitch", "x_step", "out", "out_batch", "plane", "pitch", "lead", "images",
        "planes", "sh", "sw", "n_phases", "table", "pad",
    ),
    "copy": ("out", "x", *_SIZES, *_OUT, *_IN),
    # activation(x * scale + shift); scale, shift and slope go along axis 1
    "map": ("out", "x", "scale", "shift", "slope", "activation", "p0", "p1", *_SIZES, *_OUT, *_IN),
    "binary": ("function", "out", "x", "other", "activation", "p0", "p1", *_SIZES, *_OUT, *_IN, *_OTHER),
    "pool": (
        "average", "x", "out", "images", "planes", "x_batch", "x_plane", "x_pitch", "out_batch", "out_plane",
        "out_pitch", "h", "w", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw", "top", "left", "bottom", "right",
        "include_pad",
    ),
    "global_pool": (
        "average", "x", "out", "images", "planes", "x_batch", "x_plane", "x_pitch", "out_batch", "out_plane", "h", "w",
    ),
    # float32 planes to words of `pack` channels and back: byte = round(x * scale + zero), x = (byte - zero) * scale
    "pack": (
        "x", "x_batch", "x_plane", "x_pitch", "x_step", "out", "out_batch", "out_plane", "out_pitch", "images",
        "channels", "h", "w", "pack", "scale", "zero",
    ),
    "unpack": (
        "x", "x_batch", "x_plane", "x_pitch", "out", "out_batch", "out_plane", "out_pitch", "out_step", "images",
        "channels", "h", "w", "pack", "scale", "zero",
    ),
    # maximum over windows of planes of words, `reach` of them along a row with its padding
    "packed_pool": (
        "x", "out", "images", "planes", "x_batch", "x_plane", "x_pitch", "out_batch", "out_plane", "out_pitch", "h",
        "w", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw", "top", "left", "pack", "reach",
    ),
    # mean over planes of words, one float32 per channel
    "packed_mean": (
        "x", "out", "images", "channels", "x_batch", "x_plane", "x_pitch", "out_batch", "h", "w", "pack", "scale",
        "zero",
    ),
    # one filter per channel over planes of words, `taps` windows each; see kernels/c/repack.h
    "packed_depthwise": (
        "images", "planes", "x", "x_batch", "x_plane", "out", "out_batch", "plane", "residual", "residual_batch",
        "residual_plane", "weights", "offsets", "taps", *_EPILOGUE, "mask", "vectors", *_PACKED,
    ),
    # along an axis of `length`; the other axes are size0..5
    "softmax": ("log", "out", "x", "length", "out_step", "x_step", *_SIZES, *_OUT, *_IN),
    # mean over in-axes reduced0..5
    "reduce_mean": (
        "out", "x", *_SIZES, *_OUT, *_IN, *(f"reduced{i}" for i in _AXES), *(f"reduced_stride{i}" for i in _AXES),
    ),
    # out[y, x] from rows y0[y], y1[y] and columns x0[x], x1[x], blended by wy[y], wx[x]; tables are TABLES addresses
    "resample": (
        "out", "x", "images", "planes", "out_batch", "out_plane", "out_pitch", "x_batch", "x_plane", "oh", "ow",
        "y0", "y1", "wy", "x0", "x1", "wx", "blend",
    ),
    # products with single vectors without row groups; see kernels/c/spans.h. `value_bytes`: 4 float32, 2 bfloat16, 1
    # steps of a row's `scale`, in "gemv" too; what flows stays float32
    "spans": (
        "images", "x", "x_batch", "out", "out_batch", "residual", "residual_batch", "entries", "values", "places",
        "sections", "n_sections", "rows", *_EPILOGUE, "backwards", "value_bytes", "scale",
    ),
    # a recurrent layer's step: sums of its gates [images][gates of h] to the new state, in place, and the output; see
    # kernels/c/cell.h. `lengths`: int32 per image, of which `step` is computed; `last`: no step comes after
    "cell": (
        "function", "images", "h", "sums", "sums_batch", "gated", "gated_batch", "state", "state_batch", "c",
        "c_batch", "out", "out_batch", "lengths", "step", "last", "clip", "f", "f_p0", "f_p1", "g", "g_p0", "g_p1",
        "e", "e_p0", "e_p1", "input_forget",
    ),
    # rows of float32 to words of `pack` neighbours, `step` apart and beginning `left` before the first
    "fold": (
        "x", "x_batch", "x_plane", "x_pitch", "x_step", "out", "out_batch", "out_plane", "out_pitch", "images",
        "planes", "h", "w", "ow", "step", "left", "pack", "scale", "zero",
    ),
}  # fmt: skip
KINDS: Final = {kind: number for number, kind in enumerate(RECORDS, 1)}

ACTIVATIONS: Final = {
    kind: number
    for number, kind in enumerate(
        (
            "none", "relu", "clip", "leaky_relu", "sigmoid", "hard_sigmoid", "hard_swish", "silu", "tanh", "elu",
            "softplus", "exp", "sqrt", "abs", "neg", "erf", "gelu", "affine", "thresholded_relu", "scaled_tanh",
            "softsign",
        )
    )
}  # fmt: skip
CELLS: Final = {name: i for i, name in enumerate(("rnn", "gru", "gru_reset", "gru_after", "lstm"))}
FUNCTIONS: Final = {name: i for i, name in enumerate(("add", "sub", "mul", "div", "min", "max", "pow"))}


def address(space: int, element: int) -> int:
    """The address of an element of a space."""
    return space << 40 | element


def float_bits(value: float) -> int:
    """The bits of a float32, as the non-negative integer that a record carries."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits


def record(kind: str, **fields: int) -> list[int]:
    """A record: kind, length, then every field in order. Fields not given are as in _DEFAULTS, or 0."""
    names = RECORDS[kind]
    unknown = set(fields) - set(names)
    assert not unknown, f"{kind} has no fields {sorted(unknown)}"
    values = [int(fields.get(name, _DEFAULTS.get(name, 0))) for name in names]
    return [KINDS[kind], len(names) + 2, *values]


def c_header() -> str:
    """Text of records.h: the same numbers as C enumerations."""
    lines = [
        "// Written by prunus.runtime.records: kinds of records and the positions of their fields.",
        "#pragma once",
    ]
    lines.append("enum { " + ", ".join(f"PRUNUS_{k.upper()} = {n}" for k, n in KINDS.items()) + " };")
    for kind, names in RECORDS.items():
        fields = ", ".join(f"{kind.upper()}_{name.upper()} = {i + 2}" for i, name in enumerate(names))
        lines.append(f"enum {{ {fields} }};")
    lines.append("enum { " + ", ".join(f"ACT_{k.upper()} = {n}" for k, n in ACTIVATIONS.items()) + " };")
    lines.append("enum { " + ", ".join(f"FN_{k.upper()} = {n}" for k, n in FUNCTIONS.items()) + " };")
    lines.append("enum { " + ", ".join(f"CELL_IS_{k.upper()} = {n}" for k, n in CELLS.items()) + " };")
    lines.append(f"enum {{ RANK = {RANK}, NOWHERE = {NOWHERE} }};")
    lines.append(f"enum {{ SPACE_ARENA = {ARENA}, SPACE_CONSTANTS, SPACE_TABLES, SPACE_PORTS }};")
    return "\n".join(lines) + "\n"
