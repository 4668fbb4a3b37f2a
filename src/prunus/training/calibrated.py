"""`prunus.prune_onnx`: without data by magnitude, with some by reconstruction. Only the second needs torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from prunus.extras import missing_package
from prunus.pruning import one_shot
from prunus.pruning.one_shot import LayerReport
from prunus.pruning.preferred import preferred_scheme
from prunus.sparsity.scheme import Scheme


def prune_onnx(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme | None = None,
    sparsity: float | None = None,
    ignore: Sequence[str] = (),
    *,
    precision: str = "fp32",
    target: str | None = None,
    calibration: Iterable[Mapping[str, NDArray[Any]]] | None = None,
    distil: int = 0,
    report: Callable[[LayerReport], None] | None = None,
) -> ModelProto:
    """A copy of `model` with exact zeros by `scheme`, as `prunus.pruning.one_shot.prune_onnx`, which this is without
    `calibration`.

    calibration: a few hundred unlabelled inputs in batches, by input name: the weights that stay are then refitted to
    what the dense network answers on them, see `prunus.training.reconstruct`. distil: epochs of distillation after it.
    Raises MissingExtraError: calibration, and torch isn't installed.
    """
    if calibration is None:
        return one_shot.prune_onnx(model, scheme, sparsity, ignore, precision=precision, target=target, report=report)
    scheme = preferred_scheme(precision, target) if scheme is None else scheme
    try:
        from prunus.training.reconstruct.network import Options
        from prunus.training.reconstruct.onnx_file import reconstruct_onnx
    except ModuleNotFoundError as error:
        raise missing_package("prunus.prune_onnx with calibration", error) from error
    made = reconstruct_onnx(model, scheme, sparsity, ignore, calibration, Options(distil=distil))
    for layer in made.result.layers:
        if report is not None:
            report(layer)
    return made.result.model
