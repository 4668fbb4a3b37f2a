"""Rules of operators that work position by position, or within each channel: channels stay where they are."""

from typing import Any

import numpy as np

from prunus.training.shrink.arranged import unite_all
from prunus.training.shrink.units import WHOLE, Ids, varying
from prunus.training.shrink.walk import Free, Step, is_tensor

ELEMENTWISE = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "hardshrink", "softshrink", "tanhshrink",
    "threshold", "rrelu", "clamp", "clip", "abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "sin", "cos",
    "reciprocal", "round", "add", "sub", "mul", "div", "truediv", "true_divide", "multiply", "subtract", "divide",
    "rsub", "pow", "maximum", "minimum", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_dropout", "contiguous", "float", "double", "to", "type", "detach", "clone", "iadd", "imul", "isub",
    "identity", "gt", "lt", "ge", "le", "zeros_like", "ones_like", "type_as",
}  # fmt: skip
POOLING = {
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "interpolate", "upsample", "lp_pool1d", "lp_pool2d", "boolean_dispatch", "instance_norm",
}  # fmt: skip
REDUCTIONS = {"mean", "sum", "amax", "amin", "std", "var", "logsumexp"}
SOFTMAX = {"softmax", "log_softmax", "softmin", "cumsum"}


def combine(step: Step) -> Ids | None:
    """An element-wise operator of any number of tensors, broadcast against each other."""
    n_dims = step.out.ndim
    arrays, frees, silent = list[Ids](), list[tuple[str, tuple[int, ...]]](), list[tuple[Any, tuple[int, ...]]]()
    for raw in [*step.node.args, *step.node.kwargs.values()]:
        value = step.value(raw)
        if not is_tensor(value) or value.ndim > n_dims:
            continue
        shape = (1,) * (n_dims - value.ndim) + tuple(value.shape)
        known = step.known(raw)
        if isinstance(known, Free):
            frees.append((known.name, shape))
        elif isinstance(known, np.ndarray) and (known != WHOLE).any():
            arrays.append(known.reshape((1,) * (n_dims - known.ndim) + known.shape))
        else:
            silent.append((known, shape))
    if not arrays:
        for raw in [*step.node.args, *step.node.kwargs.values()]:
            step.ids(raw)
        return None
    dims = {dim for ids in arrays for dim in varying(ids)}
    if any(shape[dim] > 1 for _, shape in silent for dim in dims) or (not dims and silent):
        arrays.append(np.full((1,) * n_dims, WHOLE))
    ids = unite_all(step, arrays)
    for name, shape in frees:
        tensor = step.walk.tensors[name]
        for dim in range(n_dims):
            if shape[dim] > 1 and ids.shape[dim] > 1:
                step.walk.tie(tensor, dim - (n_dims - tensor.ndim), ids.ravel(), step.where)
    return ids


def pool(step: Step) -> Any:
    """Windows over space: the first two dimensions (or all but the last three, two, one) are kept."""
    x = step.raw(0, "input")
    ids = step.ids(x)
    if ids is None or not is_tensor(step.out):
        step.pin(x, "returns more than a tensor")
        return None
    n_dims = len(step.shape(x))
    if any(dim > 1 or n_dims < 3 for dim in varying(ids)) or step.out.ndim != n_dims:
        step.pin(x, "pools over channels")
        return None
    return ids


def soften(step: Step, dim: Any) -> Ids | None:
    """Softmax and the like, which need all of a dimension."""
    x = step.raw(0, "input")
    ids = step.ids(x)
    if ids is None:
        return None
    if dim is None or ids.shape[dim] > 1:
        step.pin(x, "needs all channels")
        return None
    return ids


def gate(step: Step, dim: int) -> Ids | None:
    """GLU: the first half times a function of the second."""
    x = step.raw(0, "input")
    ids = step.ids(x)
    if ids is None:
        return None
    if ids.shape[dim] == 1:
        return ids
    return unite_all(step, np.split(ids, 2, dim))


def layer_norm(step: Step, shape: tuple[int, ...]) -> Ids | None:
    """Statistics over the last dimensions: fine where channels aren't among them."""
    x = step.raw(0, "input")
    ids = step.ids(x)
    if ids is None:
        return None
    if any(dim >= ids.ndim - len(shape) for dim in varying(ids)):
        step.pin(x, "normalises over channels: without some of them its statistics would be others")
        return None
    return ids
