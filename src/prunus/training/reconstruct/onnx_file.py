"""Pruning of an ONNX file with a few hundred unlabelled inputs: its torch form is reconstructed, and what changed goes
back into the file, whose nodes and names stay.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from prunus.compiler.calibrate import checked
from prunus.errors import CalibrationError
from prunus.graph.ir import Graph
from prunus.graph.load import load_model, naming
from prunus.graph.read import read
from prunus.pruning.one_shot import LayerReport, PruneResult, mean_sparsity, prune_layers, write_metadata
from prunus.pruning.onnx_weights import FLOATS, Weight, group, layer_name, weights
from prunus.pruning.onnx_weights import read as read_weight
from prunus.pruning.torch_module import to_module_with_places
from prunus.sparsity.project import resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.reconstruct.network import DEFAULTS, LayerError, Options, off_target, prune_against
from prunus.training.reconstruct.sequence import Goal, Outcome
from prunus.training.reconstruct.ties import Tie, tie, write_bias, write_weight


@final
@dataclass(frozen=True, eq=False)
class OnnxReconstruction:
    """A pruned model, the reports of `prune_layers` on it, and the errors of its reconstructed layers in the order in
    which the network calls them."""

    result: PruneResult
    errors: tuple[LayerError, ...]


def reconstruct_onnx(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme,
    sparsity: float | None,
    ignore: Sequence[str],
    calibration: Iterable[Mapping[str, NDArray[Any]]],
    options: Options = DEFAULTS,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    report: Callable[[str], None] | None = None,
    before_distillation: Callable[["OnnxReconstruction"], None] | None = None,
) -> OnnxReconstruction:
    """A copy of `model` with exact zeros in the layers that `prune_layers` prunes, reconstructed on `calibration`.

    calibration: a few hundred inputs in batches, by input name; no labels. Biases change too, and with `distil` the
    weights of layers that stay dense; a convolution without a bias may get one, where its file folds a BatchNorm. A
    layer that can't be reconstructed stays dense, and its report says why. report: gets a line on each step;
    before_distillation: gets what least squares alone made.

    Raises as `prune_layers` and `prunus.pruning.torch_module.to_module`: UnsupportedError names a node without a torch
    form. CalibrationError, FeedError: inputs that aren't there, aren't finite or don't fit.
    """
    proto, form = load_model(model), parse(scheme)
    with naming(model):
        marked, names = _name_nodes(proto)
        graph = read(marked, input_shapes, fallback=False)
        dense, places = to_module_with_places(graph)
    batches = _tensors(checked(graph, calibration), graph.inputs)
    _, why_not = _ties(proto, proto, graph, places, names)
    skeleton = prune_layers(proto, scheme, sparsity, [*([ignore] if isinstance(ignore, str) else ignore), *why_not])
    ties, _ = _ties(proto, skeleton.model, graph, places, names)
    sought = {ties[layer.weight].parameter: layer for layer in skeleton.layers if layer.scheme}
    goals = [Goal(name, form, resolve_sparsity(form, sparsity)) for name in sought]
    dense.eval().requires_grad_(False)
    sparse = copy.deepcopy(dense)

    def made(outcomes: Sequence[Outcome], refused: Mapping[str, str]) -> OnnxReconstruction:
        assert not refused, refused
        pruned = ModelProto()
        pruned.CopyFrom(skeleton.model)
        live, _ = _ties(proto, pruned, graph, places, names)
        _write_back(pruned, live.values(), sparse, dense)
        layers = [
            _report(layer, live.get(layer.weight), form, sparsity, why_not.get(layer.weight))
            for layer in skeleton.layers
        ]
        overall = mean_sparsity(layers)
        write_metadata(pruned, form, overall, layers)
        by_weight = {layer.weight: layer for layer in layers}
        errors = [LayerError(by_weight[sought[o.parameter].weight], o.magnitude, o.error) for o in outcomes]
        return OnnxReconstruction(PruneResult(pruned, tuple(layers), overall), tuple(errors))

    def between(outcomes: Sequence[Outcome], refused: Mapping[str, str]) -> None:
        if before_distillation is not None:
            before_distillation(made(outcomes, refused))

    fixed = frozenset(tied.parameter for tied in ties.values() if tied.bias is None)
    learned = _learned(sparse, ties.values())
    return made(*prune_against(sparse, dense, goals, learned, batches, options, report, fixed, between))


def _name_nodes(proto: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """A copy whose nodes have names of their own, and these by the first output: that finds them again in the graph."""
    marked, taken, names = ModelProto(), set[str](), dict[str, str]()
    marked.CopyFrom(proto)
    for node in marked.graph.node:
        name = layer_name(node)
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
        names[node.output[0]] = name
    return marked, names


def _tensors(feeds: Iterable[Mapping[str, NDArray[Any]]], inputs: Sequence[str]) -> list[tuple[Tensor, ...]]:
    batches = [tuple(_tensor(batch[name]) for name in inputs) for batch in feeds]
    if not batches:
        raise CalibrationError("calibration: no batches; reconstruction needs some inputs, as a few hundred images")
    return batches


def _tensor(array: NDArray[Any]) -> Tensor:
    """Channels last, where there are images: torch's convolutions are faster on it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _ties(
    proto: ModelProto, pruned: ModelProto, graph: Graph, places: Mapping[str, str], names: Mapping[str, str]
) -> tuple[dict[str, Tie], dict[str, str]]:
    """The tie of each float weight of the file, by the weight's name; and why others have none."""
    readers: dict[str, list[Weight]] = {}
    for weight in weights(pruned):
        if weight.node.op_type not in ("GRU", "LSTM") and weight.tensor.data_type in FLOATS:
            readers.setdefault(weight.name, []).append(weight)
    values = {weight.node.output[0]: read_weight(weight).astype(np.float64) for weight in weights(proto)}
    ties: dict[str, Tie] = {}
    why_not: dict[str, str] = {}
    for name, found in readers.items():
        if any(group(reader.node) != 1 for reader in found) and len(found) > 1:
            why_not[name] = "shared by a grouped convolution"
            continue
        made = tie(found, values[found[0].node.output[0]], graph, places, names, pruned)
        if isinstance(made, str):
            why_not[name] = made
        else:
            ties[name] = made
    return ties, why_not


def _learned(sparse: nn.Module, ties: Iterable[Tie]) -> dict[str, Tensor]:
    """The parameters that have a place in the file."""
    paths = [path for tied in ties for path in (tied.parameter, tied.bias) if path is not None]
    return {path: sparse.get_parameter(path) for path in dict.fromkeys(paths)}


def _write_back(pruned: ModelProto, ties: Iterable[Tie], sparse: nn.Module, dense: nn.Module) -> None:
    """Put what changed into the file."""
    for tied in ties:
        now, before = (_array(model, tied.parameter) for model in (sparse, dense))
        if not np.array_equal(now, before):
            write_weight(tied, now)
        if tied.bias is not None:
            now, before = (_array(model, tied.bias) for model in (sparse, dense))
            if not np.array_equal(now, before):
                write_bias(tied, now.astype(np.float64) - before, pruned)


def _array(model: nn.Module, path: str) -> NDArray[Any]:
    array: NDArray[Any] = model.get_parameter(path).detach().numpy()
    return array


def _report(
    layer: LayerReport, tied: Tie | None, scheme: Scheme, sparsity: float | None, why_not: str | None
) -> LayerReport:
    """The report as the file is now."""
    if why_not is not None:
        return replace(layer, note=why_not)
    if tied is None or layer.scheme is None:
        return layer
    array = read_weight(tied.weight)
    zeros = 1 - int(np.count_nonzero(array)) / max(array.size, 1)
    kept = [part for part in layer.note.split("; ") if part and not part.startswith("asked ")]
    off = off_target(scheme, sparsity, zeros)
    return replace(layer, sparsity=zeros, note="; ".join([*kept, *([off] if off else [])]))
