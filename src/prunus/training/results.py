"""What a training leaves in its folder, each file whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors.torch
from torch import Tensor, nn

from prunus.runtime.atomic import write_atomically
from prunus.training.evaluate import Score
from prunus.training.export import export_onnx
from prunus.training.networks import read_weights
from prunus.training.pruner import PruneReport
from prunus.training.recipe import Recipe, recipe_text
from prunus.training.snapshot import weights_of

DENSE, MODEL, WEIGHTS = "dense.safetensors", "sparse.onnx", "model.safetensors"
REPORT, RECIPE, METRICS = "report.json", "recipe.yaml", "metrics.jsonl"


@final
@dataclass(frozen=True)
class Trained:
    """report: what became of each layer. scores: dense, pruned (not recovered yet), recovered. output: the folder."""

    report: PruneReport
    scores: dict[str, Score]
    output: Path

    def plain(self) -> dict[str, Any]:
        """As report.json has it."""
        layers = [
            {
                "name": layer.name, "weight": layer.weight, "shape": list(layer.shape),
                "scheme": str(layer.scheme) if layer.scheme else None, "sparsity": layer.sparsity, "note": layer.note,
            }
            for layer in self.report.layers
        ]  # fmt: skip
        scores = {name: {"loss": score.loss, "accuracy": score.accuracy} for name, score in self.scores.items()}
        report = self.report
        return {"scores": scores, "sparsity": report.sparsity, "overall": report.overall, "layers": layers}


def write(trained: Trained, recipe: Recipe, network: nn.Module, x: Tensor, smaller: nn.Module | None = None) -> None:
    """sparse.onnx, tried with `x`; model.safetensors; report.json; recipe.yaml, with all that was in force.

    smaller: the network without its zero filters, which sparse.onnx has in place of `network`.

    Raises ExportError: as `export_onnx`. OutputError: a file can't be written.
    """
    folder = trained.output
    write_weights(folder / WEIGHTS, weights_of(network))
    write_atomically(folder / RECIPE, recipe_text(recipe).encode())
    write_atomically(folder / REPORT, (json.dumps(trained.plain(), indent=2) + "\n").encode())
    if smaller is None:
        export_onnx(network, folder / MODEL, x, trained.report.layers)
    else:
        export_onnx(smaller, folder / MODEL, x)


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors by name."""
    write_atomically(path, safetensors.torch.save(dict(weights)))


def read_dense(folder: Path) -> dict[str, Tensor]:
    """The dense network's weights of a run that goes on."""
    return read_weights(folder / DENSE)


def add_metrics(folder: Path, row: Mapping[str, Any]) -> None:
    """Add a line to metrics.jsonl."""
    with (folder / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def cut_metrics(folder: Path, step: int) -> None:
    """Leave the lines of metrics.jsonl up to a step: what comes after is done again."""
    path = folder / METRICS
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            known = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            known = False  # half a line of a run that was killed
        if known:
            lines.append(line + "\n")
    write_atomically(path, "".join(lines).encode())
