"""Checkpoints of a training: one file of safetensors each, whole or not there, the last two kept.

A file holds tensors by "model/name", "optimizer/number/name" and "pruner/name", and in its header how far the training
was, of what it is, and a hash over all tensors.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from prunus.errors import CheckpointError, PrunusWarning
from prunus.runtime.atomic import write_atomically
from prunus.training import shards
from prunus.training.state import difference

KEPT = 2
FORMAT = "1"


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """step: of the whole training. said: what else was to be remembered, as JSON has it."""

    step: int
    tensors: dict[str, Tensor]
    said: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors under `name`, without it."""
        start = f"{name}/"
        return {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)}


def write(folder: Path, saved: Checkpoint, who: str) -> None:
    """Write a checkpoint and remove those before the last one. who: identity of model and recipe.

    Raises OutputError: it can't be written; the older ones stay.
    """
    header = {
        "prunus": FORMAT, "step": str(saved.step), "said": json.dumps(saved.said), "identity": who,
        "sha256": _hash(saved.tensors),
    }  # fmt: skip
    write_atomically(_path(folder, saved.step), safetensors.torch.save(saved.tensors, header))
    for path in _files(folder)[KEPT:]:
        path.unlink(missing_ok=True)


def newest(folder: Path, who: str) -> Checkpoint | None:
    """The last checkpoint that can be read, the same on all processes; None where there are none.

    Raises CheckpointError: it is of another model or recipe, or none of those there can be read. Warns (PrunusWarning)
    of a damaged one that was passed over.
    """
    if not shards.active():
        return _newest(folder, who)
    found: list[Any] = [None]
    if shards.rank() == 0:
        try:
            found = [_newest(folder, who)]
        except CheckpointError as error:
            found = [str(error)]
    dist.broadcast_object_list(found, 0)
    if isinstance(found[0], str):
        raise CheckpointError(found[0])
    result: Checkpoint | None = found[0]
    return result


def last_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, going by its name; None where there is none."""
    files = _files(folder)
    return int(files[0].stem.rpartition("-")[2]) if files else None


def clear(folder: Path) -> None:
    """Remove all checkpoints."""
    for path in _files(folder):
        path.unlink(missing_ok=True)


def _newest(folder: Path, who: str) -> Checkpoint | None:
    files, damages = _files(folder), list[str]()
    for path in files:
        try:
            saved, theirs = _read(path)
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            damages.append(f"{path}: damaged checkpoint: {error}")
            continue
        if theirs != who:
            raise CheckpointError(f"{path}: {difference(theirs, who)}; --fresh starts again")
        for damage in damages:
            warnings.warn(f"{damage}; going on from {path.name}", PrunusWarning, stacklevel=2)
        return saved
    if damages:
        raise CheckpointError(f"{damages[0]}; --fresh starts again")
    return None


def _read(path: Path) -> tuple[Checkpoint, str]:
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    if header["prunus"] != FORMAT:
        raise ValueError(f"format {header['prunus']}, expected {FORMAT}")
    if header["sha256"] != _hash(tensors):
        raise ValueError("its hash is another than its tensors'")
    return Checkpoint(int(header["step"]), tensors, json.loads(header["said"])), header["identity"]


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:09d}.safetensors"
