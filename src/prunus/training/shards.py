"""Weights and masks on several processes: every process sees the same zeros.

Masks are decided where rank 0 is and broadcast: a process that rounds otherwise would choose other weights. Parameters
in shards (FSDP's DTensors) are gathered before they are ranked, and masks are sharded like them.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

Bools = NDArray[np.bool_]


def active() -> bool:
    """Do several processes train together?"""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process; 0 where there is one."""
    return dist.get_rank() if active() else 0


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards. All processes have to ask for it."""
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    gathered = gather()
    assert isinstance(gathered, Tensor)
    return gathered


def like(array: NDArray[Any] | Tensor, tensor: Tensor) -> Tensor:
    """`array` as a tensor of the dtype, device and shards of `tensor`."""
    full = torch.as_tensor(array).to(dtype=tensor.dtype, device=tensor.device)
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(full, tensor.device_mesh, tensor.placements)  # type: ignore[attr-defined]
    return full


def agree(masks: dict[str, Bools]) -> dict[str, Bools]:
    """The masks of rank 0, on all processes; names and shapes are the same everywhere."""
    if not active() or not masks:
        return masks
    names = list(masks)
    packed = torch.from_numpy(np.concatenate([np.packbits(masks[name]) for name in names]))
    if dist.get_backend() == "nccl":
        packed = packed.cuda()
    dist.broadcast(packed, 0)
    bits = packed.cpu().numpy()
    agreed, start = {}, 0
    for name in names:
        size, shape = masks[name].size, masks[name].shape
        n_bytes = -(-size // 8)
        agreed[name] = np.unpackbits(bits[start : start + n_bytes], count=size).astype(bool).reshape(shape)
        start += n_bytes
    return agreed


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside what distributes or compiles it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner
