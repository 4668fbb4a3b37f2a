"""What each of two processes runs: a Pruner on a network that is wrapped (ddp) or in shards (fsdp), in a user's loop.

argv: folder. Writes the masks and the whole weights that this process ended with.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from prunus.training.pruner import Pruner
from prunus.training.shards import whole
from prunus.training.snapshot import optimizer_of, set_optimizer, set_weights, weights_of
from tests.training.toy import samples

RECIPE = {
    "epochs": {"sparsify": 2, "recover": 1},
    "layers": [
        {"match": "2", "scheme": "bcr:4x16", "sparsity": 0.6},
        {"match": "5", "scheme": "filter", "sparsity": 0.5},
    ],
}


HOW = ("ddp", "fsdp")
METHODS = ("one-shot", "gradual", "admm", "reweighted")


def train(how: str, method: str, rank: int, world: int) -> dict[str, Any]:
    """Masks and weights by name."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.Linear(8, 4),
    )
    model: nn.Module = network
    if how == "ddp":
        model = nn.parallel.DistributedDataParallel(network)
    elif how == "fsdp":
        from torch.distributed.fsdp import fully_shard

        fully_shard(network[2])  # in shards again between its forward and its backward; the rest isn't
        fully_shard(network)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=1e-3)
    data = samples(64, 0)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    recipe = {**RECIPE, "method": method, **({"bcr": "column-row"} if method == "gradual" else {})}
    pruner = Pruner(model, recipe, steps_per_epoch=4)
    for step in range(pruner.epochs * 4):
        batch = slice((step % 4) * 16 + rank, (step % 4 + 1) * 16, world)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch]) + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        pruner.step()
        if step == 5:
            set_weights(network, weights_of(network))
            set_optimizer(optimizer, optimizer_of(optimizer))
            pruner.load_state_dict(pruner.state_dict())
    pruner.finalize()
    weights = {f"weight {name}": whole(value.detach()).numpy() for name, value in network.named_parameters()}
    return {**weights, **{f"mask {name}": mask for name, mask in pruner.masks.items()}}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for how in HOW:
        for method in METHODS:
            got = train(how, method, dist.get_rank(), dist.get_world_size())
            np.savez(folder / f"{how}-{method}-{dist.get_rank()}.npz", **got)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # threads of torch's may outlive the interpreter, which then aborts now and then


if __name__ == "__main__":
    main(Path(sys.argv[1]))
