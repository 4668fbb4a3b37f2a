"""Convolution and matrix product: row groups turned into records.

A convolution reads its input as it lies where a shifted window is one offset: stride 1, the same pitch in and out, and
margins wide enough. Otherwise the input is first split into phase planes, one per position inside the stride, and the
convolution goes over those with stride 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.runtime.layout import LINE, Layout, c_strides, odd_lines, up
from prunus.runtime.lower.context import Address, Draft, activation_fields, as_contiguous, clear_padding, copy
from prunus.runtime.lower.groups import packed_fields, row_groups
from prunus.runtime.program import Op
from prunus.runtime.records import LANES_STEPS, LANES_WHOLE, NOWHERE

FAR = 1 << 18  # elements of an input that no second-level cache of 1 MB holds


@dataclass(frozen=True)
class Taps:
    """Where the kernel positions of one axis read: phase and shift of each, so that
    input = (output + shift) * stride + phase."""

    phases: tuple[int, ...]
    shifts: tuple[int, ...]

    @property
    def low(self) -> int:
        return min(self.shifts)

    @property
    def high(self) -> int:
        return max(self.shifts)


def taps(kernel: int, stride: int, before: int, dilation: int) -> Taps:
    """The taps of an axis with `before` elements of padding in front."""
    places = [k * dilation - before for k in range(kernel)]
    return Taps(tuple(p % stride for p in places), tuple(p // stride for p in places))


def reads_directly(op: Op, x: Layout, out: Layout) -> bool:
    """The convolution needs no copy of its input."""
    top, left, bottom, right = op.attrs["pads"]
    if len(x.shape) != 4 or len(x.strides) != 4 or x.strides[3] != 1:
        return False
    if out.shape[2] * out.shape[3] == 1:
        return not any(op.attrs["pads"])
    if not in_steps(op, out.shape) and (tuple(op.attrs["strides"]) != (1, 1) or x.pitch != out.pitch or x.plane % LINE):
        return False
    return bool(
        x.pitch >= x.shape[3] + max(left, right)
        and x.front >= top * x.pitch + left
        and x.tail >= bottom * x.pitch + right
    )


def in_steps(op: Op, shape: tuple[int, ...]) -> bool:
    """A strided convolution that reads its input as it lies, at any pitch, if margins are wide enough. shape: of its
    output."""
    choice, strides = op.attrs["choice"], tuple(op.attrs["strides"])
    whole = (choice["tiles_per_task"], choice["tile"]) == tuple(shape[2:]) and tuple(shape[2:]) in LANES_WHOLE
    return choice["encoding"] == "lanes" and whole and strides[0] == strides[1] and strides[0] in LANES_STEPS[1:]


@dataclass(frozen=True)
class Planes:
    """The input as a convolution reads it: a plane per channel and phase (numbered by `phases`), with pixel (0, 0) of
    the first at `base`; distances of images, planes and rows, and from pixel to pixel."""

    base: Address
    batch: int
    plane: int
    pitch: int
    phases: dict[tuple[int, int], int]
    ys: Taps
    xs: Taps
    step: int = 1


def conv(draft: Draft, op: Op) -> None:
    """Convolution with its epilogue."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    source = input_planes(draft, op)
    ys, xs, phases = source.ys, source.xs, source.phases
    channels = np.arange(x.shape[1])[:, None, None] * (source.plane * len(phases))
    phase = np.array([[phases[y, x_] * source.plane for x_ in xs.phases] for y in ys.phases])
    shift = np.array(ys.shifts)[:, None] * source.pitch + np.array(xs.shifts)[None, :]
    windows = (channels + (phase + shift)[None]).ravel()  # x offset of each column of the matrix
    if out.shape[2] * out.shape[3] == 1:
        _gemv(draft, op, source.base, out.shape[0], source.batch, windows)
    elif op.attrs["choice"]["encoding"] == "lanes":
        _lanes(draft, op, source, windows)
    else:
        _pixels(draft, op, source, windows)


def depthwise(draft: Draft, op: Op) -> None:
    """Convolution of each channel with one filter, over packed channels."""
    out = draft.layout(op.outputs[0])
    source = input_planes(draft, op)
    phase = np.array([[source.phases[y, x_] * source.plane for x_ in source.xs.phases] for y in source.ys.phases])
    shift = np.array(source.ys.shifts)[:, None] * source.pitch + np.array(source.xs.shifts)[None, :]
    n, planes = out.shape[:2]
    clear_margins(draft, op)
    mask, vectors = padding_mask(draft, out)
    draft.emit(
        "packed_depthwise", images=n, planes=planes, x=source.base, x_batch=source.batch,
        x_plane=source.plane * len(source.phases), out=draft.at(op.outputs[0]), out_batch=out.batch, plane=out.plane,
        weights=draft.constant(f"{op.attrs['encoding']}.values"), offsets=draft.table(phase + shift), taps=phase.size,
        bias=draft.constant(op.attrs.get("bias")), mask=mask, vectors=vectors, **activation_fields(draft, op),
        **residual_fields(draft, op), **{k: v for k, v in packed_fields(draft, op).items() if k != "out_real"},
    )  # fmt: skip


def input_planes(draft: Draft, op: Op) -> Planes:
    """The input where it lies, if it can be read there, or a copy in phase planes."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    kh, kw = op.attrs["kernel"]
    top, left = op.attrs["pads"][:2]
    one_pixel = out.shape[2] * out.shape[3] == 1
    strides, directly = (1, 1) if one_pixel else tuple(op.attrs["strides"]), reads_directly(op, x, out)
    ys, xs = (
        taps(k, 1 if directly else s, p, d)
        for k, s, p, d in zip((kh, kw), strides, (top, left), op.attrs["dilations"], strict=True)
    )
    if directly:
        return Planes(draft.at(op.inputs[0]), x.batch, x.plane, x.pitch, {(0, 0): 0}, ys, xs, strides[0])
    pitch = out.pitch if not one_pixel else x.shape[3] + xs.high - xs.low
    pitch = max(pitch, out.shape[3] + xs.high - xs.low)
    base, batch, plane, phases = _split_phases(draft, op, strides, ys, xs, pitch)
    return Planes(base, batch, plane, pitch, phases, ys, xs)


def gemm(draft: Draft, op: Op) -> None:
    """x[..., k] by a constant matrix: one vector of inputs after another. A feature map is read where it lies."""
    x, k = draft.layout(op.inputs[0]), op.attrs["matrix"][1]
    if x.shape[-1] != k:
        places = np.indices(x.shape[1:]).reshape(len(x.shape) - 1, -1)
        _gemv(draft, op, draft.at(op.inputs[0]), x.shape[0], x.strides[0], np.asarray(x.strides[1:]) @ places)
    else:
        base = as_contiguous(draft, op.inputs[0])
        _gemv(draft, op, base, int(np.prod(x.shape[:-1])), k, np.arange(k))


def _split_phases(
    draft: Draft, op: Op, strides: tuple[int, ...], ys: Taps, xs: Taps, pitch: int
) -> tuple[Address, int, int, dict[tuple[int, int], int]]:
    """Copy the input into planes (channel, phase) whose pixel (0, 0) is output pixel (0, 0) unshifted."""
    x, out = draft.layout(op.inputs[0]), draft.layout(op.outputs[0])
    (n, c, h, w), (oh, ow), (sh, sw) = x.shape, out.shape[2:], strides
    used = sorted({(py, px) for py in ys.phases for px in xs.phases})
    lead = up(max(0, -ys.low * pitch - xs.low), LINE)
    body = (oh + ys.high - 1) * pitch + ow + xs.high
    plane = odd_lines(lead + max(body, up((oh - 1) * pitch + ow, LINE)))
    batch = plane * len(used) * c
    target = draft.temporary(n * batch)
    table = [
        (py, px, max(ys.low, 0), min(oh - 1 + ys.high, (h - 1 - py) // sh),
         max(xs.low, 0), min(ow - 1 + xs.high, (w - 1 - px) // sw))
        for py, px in used
    ]  # fmt: skip
    draft.emit(
        "phases", x=draft.at(op.inputs[0]), x_batch=x.batch, x_plane=x.plane, x_pitch=x.pitch, x_step=x.strides[3],
        out=target, out_batch=batch, plane=plane, pitch=pitch, lead=lead, images=n, planes=c, sh=sh, sw=sw,
        n_phases=len(used), table=draft.table(np.array(table).ravel()),
        pad=draft.program.tensors[op.inputs[0]].pad,
    )  # fmt: skip
    return target + lead, batch, plane, {phase: number for number, phase in enumerate(used)}


def _pixels(draft: Draft, op: Op, source: Planes, windows: NDArray[np.int64]) -> None:
    """Row groups over a flat run of pixels."""
    out, lanes = draft.layout(op.outputs[0]), draft.program.lanes
    n, o = out.shape[:2]
    encoding, fields = row_groups(draft, op, windows)
    clear_margins(draft, op)
    mask, vectors = padding_mask(draft, out)
    choice = op.attrs["choice"]
    tile = choice["tile"]
    sums_in_out = len(encoding.parts) > len(encoding.sections)
    draft.need_scratch(0 if sums_in_out else o * tile * lanes)
    draft.emit(
        "conv", images=n, x=source.base, x_batch=source.batch, out=draft.at(op.outputs[0]), out_batch=out.batch,
        plane=out.plane,
        mask=mask, vectors=vectors, tile=tile, tiles_per_task=choice["tiles_per_task"],
        pixels_outer=int(choice["pixels_outer"]), rows=o, sums_in_out=int(sums_in_out),
        **_ahead(draft, op, source, windows, int(encoding.counts.sum())),
        **residual_fields(draft, op), **fields,
    )  # fmt: skip


def _lanes(draft: Draft, op: Op, source: Planes, windows: NDArray[np.int64]) -> None:
    """Row groups over the lines of a small map."""
    out = draft.layout(op.outputs[0])
    by_tap = windows.reshape(draft.layout(op.inputs[0]).shape[1], -1).T.ravel()
    _, fields = row_groups(draft, op, by_tap, cuts=cuts_of(draft, op))
    clear_margins(draft, op)
    draft.emit(
        "lanes", images=out.shape[0], x=source.base, x_batch=source.batch, x_pitch=source.pitch * source.step,
        step=source.step, out=draft.at(op.outputs[0]), out_batch=out.batch, out_pitch=out.pitch, plane=out.plane,
        lines=out.shape[2], width=out.shape[3], tile_lines=op.attrs["choice"]["tiles_per_task"],
        tile=op.attrs["choice"]["tile"],
        **residual_fields(draft, op), **fields,
    )  # fmt: skip


def cuts_of(draft: Draft, op: Op) -> NDArray[np.int64]:
    """int64[columns], tap by tap: which edge of the output would only meet padding there, as kernels/c/lanes.h wants it
    told; of maps that are more than a tile, none."""
    x, out, choice = draft.layout(op.inputs[0]), draft.layout(op.outputs[0]), op.attrs["choice"]
    edges = [np.zeros(n, np.int64) for n in op.attrs["kernel"]]
    if (choice["tiles_per_task"], choice["tile"]) == out.shape[2:]:
        for axis, edge in enumerate(edges):
            stride, dilation, before = (op.attrs[key][axis] for key in ("strides", "dilations", "pads"))
            first = np.arange(len(edge)) * dilation - before
            last = first + (out.shape[2 + axis] - 1) * stride
            edge[last >= x.shape[2 + axis]] = 2
            edge[first < 0] = 1  # where both are padding, the last is computed
    return np.repeat((3 * edges[0][:, None] + edges[1]).ravel(), x.shape[1])


def _ahead(draft: Draft, op: Op, source: Planes, windows: NDArray[np.int64], n_columns: int) -> dict[str, int]:
    """What of the next tile to ask for: the last row of its windows, for the others were there before. Only for
    float32 from beyond a second-level cache, and where that costs little beside the columns of all groups."""
    choice, planes = op.attrs["choice"], draft.layout(op.inputs[0]).shape[1] * len(source.phases)
    if draft.program.tensors[op.inputs[0]].pack > 1 or planes * source.plane < FAR:
        return {}
    if choice["section"] < 2 or planes * choice["tile"] > n_columns:
        return {}
    of_one = windows[: int(np.prod(op.attrs["kernel"]))]
    return {"ahead_planes": planes, "ahead_plane": source.plane, "ahead": int(of_one.max(initial=0) % source.plane)}


def padding_mask(draft: Draft, out: Layout) -> tuple[int, int]:
    """Address of the mask over a plane's vectors, all ones where a pixel is real, or NOWHERE where none is needed; and
    the number of vectors."""
    lanes, (h, w) = draft.program.lanes, out.shape[2:]
    pixels = (h - 1) * out.pitch + w
    vectors = -(-pixels // lanes)
    if out.pitch > w or (out.tail and pixels % lanes):  # the last vector reaches into the padding behind the plane
        lane = np.arange(vectors * lanes)
        return draft.table(np.where((lane % out.pitch < w) & (lane < pixels), -1, 0)), vectors
    return NOWHERE, vectors


def clear_margins(draft: Draft, op: Op) -> None:
    """Zeros above and below the output's planes, if any reader relies on them."""
    out = draft.layout(op.outputs[0])
    n, o, h, w = out.shape
    start, front = (h - 1) * out.pitch + w, up(out.front, LINE)
    if out.front or out.tail:
        draft.emit(
            "margins", out=draft.at(op.outputs[0]), images=n, out_batch=out.batch, planes=o, plane=out.plane,
            front=front, tail_start=start, tail=out.plane - front - start,
            pad=draft.program.tensors[op.outputs[0]].pad,
        )  # fmt: skip


def residual_fields(draft: Draft, op: Op) -> dict[str, Any]:
    """Where the second input of a convolution lies, which is added before the activation; its rows lie as the
    output's do."""
    if len(op.inputs) < 2:
        return {"residual": NOWHERE}
    other = draft.layout(op.inputs[1])
    return {"residual": draft.at(op.inputs[1]), "residual_batch": other.batch, "residual_plane": other.plane}


def held_fields(draft: Draft, op: Op) -> dict[str, Any]:
    """How weights are held in fewer bits than they are computed in, where they are."""
    n_bytes = draft.program.constants[f"{op.attrs['encoding']}.values"].dtype.itemsize
    return {"value_bytes": n_bytes, "scale": draft.constant(op.attrs.get("scale"))} if n_bytes < 4 else {}


def _gemv(draft: Draft, op: Op, base: Address, images: int, x_batch: int, windows: NDArray[np.int64]) -> None:
    """Row groups for single vectors of inputs."""
    narrow = bool(windows.size) and int(windows.min()) >= 0 and int(windows.max()) < 1 << 16
    encoding, fields = row_groups(draft, op, windows, narrow=narrow)
    name = op.outputs[0]
    packed, o = draft.program.tensors[name].pack, encoding.shape[0]
    o = -(-o // packed)
    fields = {**fields, "residual": NOWHERE, "residual_batch": o}
    if len(op.inputs) > 1:
        fields["residual"] = as_contiguous(draft, op.inputs[1])
    layout = draft.layout(name)
    target = draft.at(name) if layout.contiguous else draft.temporary(images * o)
    draft.emit(
        "gemv", images=images, x=base, x_batch=x_batch, out=target, out_batch=o, row_stride=1,
        narrow=int(narrow), **fields, **held_fields(draft, op),
    )  # fmt: skip
    if not layout.contiguous:  # a matrix product of four axes, which are planes to whoever reads them
        clear_padding(draft, name)
        copy(draft, draft.at(name), layout.strides, target, c_strides(layout.shape), layout.shape)
