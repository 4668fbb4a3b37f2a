"""Rules of operators that move channels about: reshaping, permuting, joining, cutting.

A number that is written in the network can't change with its channels: what depends on one stays whole.
"""

from typing import Any

import numpy as np
from torch import Tensor, fx

from prunus.training.shrink.units import WHOLE, Ids, compress, varying
from prunus.training.shrink.walk import Sizes, Step, constant

_ARITHMETIC = {"floordiv", "mul", "add", "sub", "truediv", "int", "neg", "getitem", "floor_divide", "prod"}
RESHAPES = {"view", "reshape", "unflatten", "new_zeros", "new_ones", "repeat_interleave", "split", "expand"}


def reshape(step: Step, sizes: list[Any]) -> Ids | None:
    """sizes: as written, one per dimension of the output; [] where none is written, as in flatten."""
    x = step.raw(0, "input")
    ids, shape = step.ids(x), step.shape(x)
    if ids is None:
        return None
    out = compress(np.broadcast_to(ids, shape).reshape(tuple(step.out.shape)))
    fixed = [dim for dim, size in enumerate(sizes) if constant(size) and size != -1]
    dims = varying(out)
    open_dims = [dim for dim in dims if dim not in fixed]
    if dims and not open_dims:
        step.pin(x, f"the size {sizes[dims[-1]]} is written in the network")
        return None
    stays = max(open_dims, key=lambda dim: out.shape[dim], default=None)
    for dim in dims:
        if dim != stays:
            first = out.take([0], dim)
            step.walk.units.unite(out, first, step.where)
            out = np.where((out == WHOLE).any(dim, keepdims=True), WHOLE, first)
    return out


def permute(step: Step, order: tuple[int, ...]) -> Ids | None:
    """As numpy's transpose."""
    ids = step.ids(step.raw(0, "input"))
    return None if ids is None else ids.transpose(order)


def swap(step: Step, a: int, b: int) -> Ids | None:
    """Two dimensions change places."""
    ids = step.ids(step.raw(0, "input"))
    return None if ids is None else np.swapaxes(ids, a, b)


def squeeze(step: Step, dim: Any) -> Ids | None:
    """Dimensions of size 1 go: all, one, or those of a tuple."""
    x = step.raw(0, "input")
    ids, shape = step.ids(x), step.shape(x)
    if ids is None:
        return None
    chosen = range(len(shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(shape) for d in chosen if shape[d] == 1}
    return ids.reshape([n for d, n in enumerate(ids.shape) if d not in gone])


def unsqueeze(step: Step, dim: int) -> Ids | None:
    """A dimension of size 1 comes."""
    ids = step.ids(step.raw(0, "input"))
    return None if ids is None else np.expand_dims(ids, dim)


def join(step: Step, dim: int, stack: bool) -> Ids | None:
    """Concatenation: offsets among the ids are those of the channels."""
    parts = step.raw(0, "tensors")
    if not isinstance(parts, list | tuple):
        step.pin(None, "a list that is computed")
        return None
    n_dims = step.out.ndim
    dim %= n_dims
    pieces = []
    for part in parts:
        ids, shape = step.ids(part), step.shape(part)
        if ids is None:
            ids = np.full((1,) * len(shape), WHOLE)
        if stack:
            ids, shape = np.expand_dims(ids, dim), (*shape[:dim], 1, *shape[dim:])
        pieces.append((ids, shape[dim]))
    if all(ids.shape[dim] == 1 and (stack or (ids == WHOLE).all()) for ids, _ in pieces):
        return unite_all(step, [ids for ids, _ in pieces])
    rest = [max(ids.shape[d] for ids, _ in pieces) for d in range(n_dims)]
    spread = []
    for ids, extent in pieces:
        rest[dim] = extent
        spread.append(np.broadcast_to(ids, rest))
    joined = compress(np.concatenate(spread, dim))
    if len(varying(joined)) > 1:
        step.pin(None, "joined along another dimension than the channels'")
        return None
    return joined


def unite_all(step: Step, arrays: list[Ids]) -> Ids:
    """The ids of an element-wise operator's result: what meets at a position lives or dies together."""
    total = arrays[0]
    for ids in arrays[1:]:
        step.walk.units.unite(total, ids, f"{step.where}: meets what stays whole")
        a, b = np.broadcast_arrays(total, ids)
        total = np.where((a == WHOLE) | (b == WHOLE), WHOLE, a)
    if len(varying(total)) > 1:
        for ids in arrays:
            step.walk.units.pin(ids, f"{step.where}: channels meet along two dimensions")
        return np.full((1,) * total.ndim, WHOLE)
    return total


def cut(step: Step, dim: int, sizes: Any, n_parts: int) -> Any:
    """chunk and split: parts of equal, computed size lose the same channels each; others stay whole.

    sizes: as written; None for chunk.
    """
    x = step.raw(0, "input")
    ids, shape = step.ids(x), step.shape(x)
    if ids is None:
        return None
    dim %= len(shape)
    if ids.shape[dim] == 1:
        return [ids] * n_parts
    if sizes is not None and (constant(sizes) or not isinstance(step.value(sizes), int)):
        step.pin(x, f"parts of size {sizes} are written in the network")
        return None
    if shape[dim] % n_parts or shape[dim] == n_parts:
        step.pin(x, f"{n_parts} parts of unequal size, or of one channel")
        return None
    parts = np.split(ids, n_parts, dim)
    unite_all(step, parts)
    return parts


def index(step: Step) -> Any:
    """x[...]: of tensors, shapes and lists."""
    source, item = step.node.args[0], step.node.args[1]
    known = step.known(source)
    if isinstance(known, list):
        return known[item] if isinstance(item, int | slice) else None
    if isinstance(known, Sizes):
        return _index_sizes(step, known, item)
    ids = step.ids(source)
    if ids is None:
        return None
    items = list(item) if isinstance(item, tuple) else [item]
    if Ellipsis in [part for part in items if not isinstance(part, Tensor | fx.Node)]:
        at = next(n for n, part in enumerate(items) if part is Ellipsis)
        n_used = sum(part is not None for part in items) - 1
        items[at : at + 1] = [slice(None)] * (ids.ndim - n_used)
    picked, dim = list[Any](), 0
    for part in items:
        if part is None:
            picked.append(None)
            continue
        plain = isinstance(part, slice) or isinstance(step.value(part), int)
        if not plain or (ids.shape[dim] > 1 and part != slice(None)):
            step.pin(source, "picks channels by number")
            return None
        picked.append(slice(None) if isinstance(part, slice) else 0)
        dim += 1
    return ids[tuple(picked)]


def read_sizes(step: Step, dim: Any) -> Any:
    """x.shape and x.size(): fine where it is another dimension's, or makes a size to reshape by."""
    ids = step.ids(step.raw(0, "input"))
    if ids is None:
        return None
    sizes = Sizes(ids)
    return sizes if dim is None else _index_sizes(step, sizes, dim, step.node)


def _index_sizes(step: Step, sizes: Sizes, item: Any, node: fx.Node | None = None) -> None:
    chosen = range(sizes.ids.ndim)[item] if isinstance(item, int | slice) else range(sizes.ids.ndim)
    dims = [chosen] if isinstance(chosen, int) else list(chosen)
    if any(sizes.ids.shape[dim] > 1 for dim in dims) and not _only_reshapes(node or step.node):
        step.walk.units.pin(sizes.ids, f"{step.where}: the network computes with the number of channels")


def _only_reshapes(node: fx.Node) -> bool:
    for user in node.users:
        name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "")
        if name in RESHAPES or (name in _ARITHMETIC and _only_reshapes(user)):
            continue
        return False
    return True


def pad(step: Step, amounts: Any, mode: str) -> Ids | None:
    """amounts: last dimension first, before and after."""
    x = step.raw(0, "input")
    ids, shape = step.ids(x), step.shape(x)
    if ids is None:
        return None
    pairs = [(0, 0)] * len(shape)
    for n in range(len(amounts) // 2):
        pairs[len(shape) - 1 - n] = (amounts[2 * n], amounts[2 * n + 1])
    for dim in varying(ids):
        if pairs[dim] == (0, 0):
            continue
        if mode != "constant" or min(pairs[dim]) < 0:
            step.pin(x, "pads channels otherwise than with a constant")
            return None
        widths = [pairs[d] if d == dim else (0, 0) for d in range(len(shape))]
        ids = np.pad(ids, widths, constant_values=WHOLE)
    return ids


def reduce(step: Step, dims: Any, keep: bool) -> Ids | None:
    """Sums, means and extremes: over channels they are all needed."""
    x = step.raw(0, "input")
    ids, shape = step.ids(x), step.shape(x)
    if ids is None:
        return None
    chosen = range(len(shape)) if dims is None or dims == () else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(shape) for dim in chosen}
    if any(ids.shape[dim] > 1 for dim in gone):
        step.pin(x, "reduces over channels")
        return None
    if keep:
        return ids
    return ids.reshape([n for dim, n in enumerate(ids.shape) if dim not in gone])
