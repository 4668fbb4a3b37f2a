"""A smaller network out of a masked one: rows and columns go for real, and the result is checked against the mask.

A removed group is masked wherever it is: its filters, their biases, BatchNorm's scale and shift, and the columns of all
layers that read it. So whatever constant an activation makes of a masked channel is multiplied by zero, padding or not,
and both networks answer alike.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import ShrinkError
from prunus.training.shrink.follow import copy_of, find_groups
from prunus.training.shrink.groups import Groups, kept
from prunus.training.shrink.trace import Inputs
from prunus.training.shrink.units import WHOLE

Bools = NDArray[np.bool_]
BOUND = 1e-4  # largest difference over largest output


def shrink(
    model: nn.Module,
    example_inputs: Inputs,
    keep: Bools | Mapping[str, Bools] | None = None,
    groups: Groups | None = None,
    *,
    inplace: bool = False,
) -> nn.Module:
    """The network without the groups that `keep` drops, equal to the one in which they are masked.

    keep: bool[groups.n]; or, by the names of weights or their modules, bool[filters]: a group goes when all of its
    filters that are named go; or None: what is zero in the model already, everywhere where it would be removed, goes.
    groups: of `find_groups`, if they are known. inplace: the model itself is masked and made smaller; it may be half
    changed after an error.

    Raises UnsupportedError: as `find_groups`. ShrinkError: a name or length in `keep` that isn't one; nothing would be
    left of a layer; the smaller network can't be run or answers otherwise than the masked one.
    """
    groups = find_groups(model, example_inputs) if groups is None else groups
    chosen = dead_groups(model, groups) if keep is None else _chosen(groups, keep)
    _refuse_empty(groups, chosen)
    smaller = model if inplace else copy_of(model)
    mask(smaller, groups.masks(chosen))
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    trials = [inputs, tuple(_other(x, seed) for seed, x in enumerate(inputs))]
    wanted = [_answers(smaller, trial) for trial in trials]
    remove(smaller, groups, chosen)
    for trial, answers in zip(trials, wanted, strict=True):
        _compare(smaller, trial, answers)
    return smaller


@torch.no_grad()
def mask(model: nn.Module, masks: Mapping[str, Bools]) -> None:
    """Zero what the masks drop; statistics stay as they are."""
    for name, parameter in model.named_parameters():
        if name in masks:
            parameter.mul_(torch.from_numpy(masks[name]).to(parameter))


def dead_groups(model: nn.Module, groups: Groups) -> Bools:
    """bool[n], False where all parameters of a group are zero: masked as `shrink` would mask it."""
    alive = np.zeros(groups.n, bool)
    parameters = dict(model.named_parameters())
    for (name, dim), ids in groups.ties.items():
        if name in parameters:
            value = parameters[name].detach().cpu()
            some = (value != 0).movedim(dim, 0).reshape(len(ids), -1).any(1).numpy()
            alive[ids[some & (ids != WHOLE)]] = True
    return alive


@torch.no_grad()
def remove(model: nn.Module, groups: Groups, keep: Bools) -> None:
    """Take the rows and columns of dropped groups out of a model's tensors, in place."""
    indices: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, dim), ids in groups.ties.items():
        stays = np.flatnonzero(kept(ids, keep))
        if len(stays) < len(ids):
            indices.setdefault(name, []).append((dim, torch.from_numpy(stays)))
    smaller: dict[int, Tensor] = {}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, cuts in indices.items():
        value = tensors[name].detach()
        for dim, stays_in in cuts:
            value = value.index_select(dim, stays_in.to(value.device))
        value = value.contiguous()
        if isinstance(old := tensors[name], nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        smaller[id(tensors[name])] = value
    for module in model.modules():
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and id(tensor) in smaller:
                setattr(module, key, smaller[id(tensor)])
    modules = dict(model.named_modules())
    for name, module in modules.items():
        prefix = f"{name}." if name else ""
        widths = groups.widths.get(f"{prefix}weight")
        _resize(module, None if widths is None else int(kept(widths, keep).sum()))


def _resize(module: nn.Module, n_inputs: int | None) -> None:
    """Attributes that repeat the sizes of weights. n_inputs: of a grouped convolution."""
    at = cast(Any, module)
    weight = module._parameters.get("weight")
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and weight is not None:
        if n_inputs is not None:
            at.groups = n_inputs // weight.shape[1]
        at.out_channels, at.in_channels = weight.shape[0], weight.shape[1] * at.groups
    elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) and weight is not None:
        at.in_channels, at.out_channels = weight.shape[0], weight.shape[1] * at.groups
    elif isinstance(module, nn.Linear) and weight is not None:
        at.out_features, at.in_features = weight.shape
    elif isinstance(module, nn.RNNBase) and not getattr(module, "proj_size", 0):
        at.hidden_size, at.input_size = at.weight_hh_l0.shape[1], at.weight_ih_l0.shape[1]
    elif isinstance(module, nn.PReLU) and weight is not None:
        at.num_parameters = weight.shape[0]
    elif isinstance(getattr(module, "num_features", None), int):
        sizes = [t.shape[0] for t in (weight, module._buffers.get("running_mean")) if t is not None and t.ndim == 1]
        if sizes:
            at.num_features = sizes[0]


def _chosen(groups: Groups, keep: Bools | Mapping[str, Bools]) -> Bools:
    if not isinstance(keep, Mapping):
        if keep.shape != (groups.n,):
            raise ShrinkError(f"keep: found shape {keep.shape}, expected ({groups.n},), one for each group")
        return keep.astype(bool)
    named, wanted = np.zeros(groups.n, bool), np.zeros(groups.n, bool)
    known = {name: key for key in groups.filters for name in (key[0], key[0].rpartition(".")[0])}
    for name, filters in keep.items():
        if name not in known:
            raise ShrinkError(f"keep: {name}: no layer of that name, expected one of {', '.join(known)}")
        key = known[name]
        n = groups.shapes[key[0]][key[1]]
        if filters.shape != (n,):
            raise ShrinkError(f"keep: {name}: found shape {filters.shape}, expected ({n},), one for each filter")
        ids = groups.ties.get(key, np.full(n, WHOLE))
        named[ids[ids != WHOLE]] = True
        wanted[ids[filters & (ids != WHOLE)]] = True
    return wanted | ~named


def _refuse_empty(groups: Groups, keep: Bools) -> None:
    for (name, dim), ids in groups.ties.items():
        if len(ids) and not kept(ids, keep).any():
            what = "filters" if (name, dim) in groups.filters else "channels"
            raise ShrinkError(f"{name}: none of {len(ids)} {what} would be left, expected at least one")


def _other(x: Tensor, seed: int) -> Tensor:
    """Another input of the same kind: examples may be all zeros."""
    if not x.is_floating_point():
        return x
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator).to(x)


def _answers(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    modes = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        with torch.no_grad():
            return [value.detach().cpu().clone() for value in _flat(model(*(x.to(device) for x in inputs)))]
    finally:
        for module, mode in modes.items():
            module.training = mode


def _flat(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _flat(part)]


def _compare(model: nn.Module, inputs: tuple[Tensor, ...], wanted: list[Tensor]) -> None:
    try:
        found = _answers(model, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ShrinkError(f"{type(model).__name__}: can't be run without the channels: {said}") from error
    for index, (got, expected) in enumerate(zip(found, wanted, strict=True)):
        if got.shape != expected.shape:
            raise ShrinkError(f"output {index}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
        scale = max(float(expected.abs().max()) if expected.numel() else 0.0, 1e-12)
        error_share = float((got.double() - expected.double()).abs().max()) / scale if expected.numel() else 0.0
        if not error_share <= BOUND:
            raise ShrinkError(
                f"output {index}: differs from the masked network by {error_share:.1e} of the largest, "
                f"expected at most {BOUND:g}"
            )
