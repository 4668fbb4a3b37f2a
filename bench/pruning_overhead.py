"""What pruning adds to a training step: the share of penalty(), its gradient and step(), by method and scheme.

    python -m bench.pruning_overhead           # a few minutes; appends to bench/results/pruning_overhead.jsonl
    python -m bench.pruning_overhead --quick   # prints only

A ResNet-20 on batches of 128 images of 28x28, one thread, float32, SGD with momentum; three epochs of 469 steps to
sparsify in. Times are the process's on the CPU, which other processes don't add to. Every N_BETWEEN steps of the
pruner one step of training is timed, and then the penalty with its gradient: in turns, so that the machine's moods
meet both. "value" is the time of all steps of the pruner and of as many penalties, over that of as many steps of
training; medians, but for step(): its rare long ones count as they are.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from bench import store
from bench.fashion import BATCH, resnet20
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "pruning_overhead.jsonl"
GOAL = 0.10
N_STEPS, N_EPOCHS, N_BETWEEN = 469, 3, 50
MATCH = "re:^1"  # the residual blocks
SCHEMES = {"bcr:8x64": 0.9, "punched:8x4": 0.8, "unstructured": 0.9}
METHODS: dict[str, dict[str, Any]] = {
    "one-shot": {"method": "one-shot"},
    "gradual": {"method": "gradual"},
    "gradual, regrowth": {"method": "gradual", "gradual": {"regrowth": True}},
    "gradual, taylor": {"method": "gradual", "criterion": "taylor"},
    "admm": {"method": "admm"},
    "admm, one-sided": {"method": "admm", "admm": {"one_sided": True}},
    "reweighted": {"method": "reweighted"},
    "reweighted, squared": {"method": "reweighted", "reweighted": {"norm": "squared"}},
}


def timed(call: Callable[[], object]) -> float:
    """Seconds of the CPU that a call takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(method: str, scheme: str, between: int = N_BETWEEN) -> store.Row:
    """Milliseconds of a step of training, of the penalty with its gradient, and of step(); their share."""
    torch.manual_seed(0)
    network = resnet20().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    rule = {"match": MATCH, "scheme": scheme, "sparsity": SCHEMES[scheme]}
    recipe = {**METHODS[method], "epochs": {"sparsify": N_EPOCHS}, "layers": [rule]}

    def train() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def penalise() -> None:
        penalty = pruner.penalty()
        if isinstance(penalty, torch.Tensor):
            penalty.backward()  # type: ignore[no-untyped-call]

    train()
    pruner = Pruner(network, recipe, steps_per_epoch=N_STEPS)
    training, penalties, steps = list[float](), list[float](), list[float]()
    total = N_STEPS * N_EPOCHS
    for step in range(total):
        if step % between == 0:
            training.append(timed(train))
            penalties += [timed(penalise) for _ in range(3)]
        steps.append(timed(pruner.step))
    step_s, penalty_s = statistics.median(training), statistics.median(penalties)
    return {
        "method": method, "scheme": scheme, "training_ms": step_s * 1e3, "penalty_ms": penalty_s * 1e3,
        "step_ms": statistics.median(steps) * 1e3, "longest_step_ms": max(steps) * 1e3,
        "value": (penalty_s * total + sum(steps)) / (step_s * total), "goal": GOAL,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    stamp = store.stamp()
    for scheme in SCHEMES:
        for method in METHODS:
            row = measure(method, scheme, N_BETWEEN * (4 if quick else 1))
            if not quick:
                store.append(RESULTS, stamp | {"key": f"{method} {scheme}", "quick": False} | row)
            print(
                f"{method:20} {scheme:12} {row['value']:6.1%}  training {row['training_ms']:.0f} ms, penalty "
                f"{row['penalty_ms']:.2f}, step {row['step_ms']:.2f}, longest {row['longest_step_ms']:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
