"""The list of operators that a plan can hold, each with its lowering. A partition is run beside the plan."""

from collections.abc import Callable
from typing import Final

from prunus.runtime.lower import depthwise, elementwise, layer, move, product, recurrent, repack, window, winograd
from prunus.runtime.lower.context import Draft
from prunus.runtime.program import Op


def conv(draft: Draft, op: Op) -> None:
    """Convolution, the way its choice says."""
    way = op.attrs["choice"]["encoding"]
    if way == "winograd":
        winograd.conv(draft, op)
    elif way == "depthwise":
        depthwise.conv(draft, op)
    elif way == "channels":
        layer.depthwise(draft, op)
    else:
        layer.conv(draft, op)


LOWERINGS: Final[dict[str, Callable[[Draft, Op], None]]] = {
    "pack": repack.pack,
    "unpack": repack.unpack,
    "fold": repack.fold,
    "conv": conv,
    "gemm": product.gemm,
    "recurrent": recurrent.recurrent,
    "max_pool": window.max_pool,
    "avg_pool": window.avg_pool,
    "global_avg_pool": window.global_avg_pool,
    "global_max_pool": window.global_max_pool,
    "activation": elementwise.activation,
    "binary": elementwise.binary,
    "concat": move.concat,
    "interleave": move.interleave,
    "slice": move.slice_,
    "split": move.split,
    "pad": move.pad,
    "reshape": move.reshape,
    "transpose": move.transpose,
    "softmax": elementwise.softmax,
    "resize": window.resize,
    "reduce_mean": elementwise.reduce_mean,
    "scale_shift": elementwise.scale_shift,
    "identity": elementwise.identity,
}
