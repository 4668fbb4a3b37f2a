"""Plans for the networks of bench.fashion: by rules, exactly, or by search, from the measured latency table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import fashion, store, training
from prunus.mapping.evaluate import Effort, Evaluator
from prunus.mapping.names import names_of
from prunus.mapping.network import read_network
from prunus.mapping.options import sources_of
from prunus.mapping.plan import Budget, Plan, make_plan
from prunus.mapping.rules import Terms
from prunus.mapping.search import Progress
from prunus.mapping.searched import Searching, searched_plan
from prunus.mapping.sensitivity import measure_gains
from prunus.mapping.space import Space
from prunus.pruning.images import Scaling
from prunus.training.data import Samples
from prunus.training.export import export_onnx
from prunus.training.layers import find_layers
from prunus.training.standard import Augment, Optimizer

CALIBRATION = 4  # batches of 64 from the training set, for sensitivities
TRIALS = 240
EFFORT = Effort(
    steps=40, batch_size=fashion.BATCH, bf16=True, held_out=fashion.N_CHOOSE, augment=Augment(shift=2, flip=True),
    optimizer=Optimizer(name="sgd", rate=0.02, schedule="one-cycle", weight_decay=5e-4),
)  # fmt: skip
STATE = store.ROOT / "out" / "mapped"  # of searches, to go on from


def dense_file(network: str, seed: int) -> Path:
    """The dense network of a seed as ONNX, from the weights that bench.training keeps."""
    path = training.KEPT / f"{network}-dense-{seed}.onnx"
    weights = path.with_suffix(".pt")
    if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
        model = fashion.NETWORKS[network]()
        model.load_state_dict(torch.load(weights, weights_only=True))
        export_onnx(model, path, torch.zeros(2, 1, 28, 28))
    return path


def make(network: str, way: str, speedup: float, data: fashion.Data) -> store.Row:
    """Rules per layer for the torch module, times, and of search the accuracy that it saw.

    Raises BudgetError: it can't be as fast as that.
    """
    model, _ = training.dense(network, 0, data)
    read = read_network(dense_file(network, 0), threads=1)
    gains = {} if way == "rules" else measure_gains(read, list(_feeds(data)))
    sources = sources_of(read, gains, _say)
    budget, row = Budget("speedup", speedup), dict[str, Any]()
    if way == "search":
        model.to(memory_format=fashion.LAST)

        def accuracy_of(space: Space) -> Evaluator:
            return Evaluator(model, space, _samples(data), EFFORT, STATE / "accuracies.jsonl")

        how = Searching(TRIALS, state=STATE)
        plan, found = searched_plan(sources, budget, Terms(), way, accuracy_of, how, _say)
        row["accuracy"] = found.accuracy
    else:
        plan = make_plan(sources, budget, way, Terms())
    return {"layers": _rules(plan, model), "ms": plan.predicted_ms, "dense_ms": plan.dense_ms, **row}


def _rules(plan: Plan, model: torch.nn.Module) -> list[dict[str, Any]]:
    """Of the layers that torch has, by its names."""
    layers, rules = find_layers(model), list[dict[str, Any]]()
    for row in plan.rows:
        option = row.option
        what = {"skip": True} if option.scheme is None else {"scheme": option.scheme, "sparsity": option.sparsity}
        rules += [{"match": name, **what} for name in names_of(row.layer, layers)]
    return rules


def _samples(data: fashion.Data) -> Samples:
    """Those to train with and those for choosing; the test images aren't among them."""
    x, y = (torch.cat(both).numpy() for both in ((data.x, data.choose_x), (data.y, data.choose_y)))
    return Samples((x, y), "Fashion-MNIST", Scaling((0.0,), (1.0,), False), None)


def _feeds(data: fashion.Data) -> Iterator[dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    for batch in data.x[: CALIBRATION * 64].split(64):
        yield {"x": batch.numpy()}


def _say(step: object) -> None:
    if not isinstance(step, Progress) or step.done % 6 == 0:
        print(f"  {step}", flush=True)
