"""One-shot pruning of an ONNX file without data: the weights of least norm go, by scheme and
sparsity.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS
2015, arXiv:1506.02626, section 3, for magnitude as the criterion; the groups are the scheme's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from prunus.graph.load import load_model
from prunus.pruning.onnx_weights import (
    FLOATS,
    LAYERS,
    SLOTS,
    Weight,
    graphs,
    group,
    layer_name,
    n_stacked,
    read,
    uses,
    weights,
    write,
)
from prunus.pruning.preferred import preferred_scheme
from prunus.pruning.selection import matches, select
from prunus.sparsity.check import fits
from prunus.sparsity.project import TOLERANCE, resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse
from prunus.sparsity.stacked import project_stacked


@final
@dataclass(frozen=True)
class LayerReport:
    """What became of one weight: its shape as filters first, and the fraction of zeros that it has
    now.

    scheme: None where it was left as it was, `note` then says why. Else `note` says what is out of
    the ordinary.
    """

    name: str
    weight: str
    shape: tuple[int, ...]
    scheme: Scheme | None
    sparsity: float
    note: str = ""


@final
@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned model, and one report per weight of each of its layers, pruned or not.

    sparsity: fraction of zeros over all weights that were pruned.
    """

    model: ModelProto
    layers: tuple[LayerReport, ...]
    sparsity: float


def prune_onnx(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme | None = None,
    sparsity: float | None = None,
    ignore: Sequence[str] = (),
    *,
    precision: str = "fp32",
    target: str | None = None,
    report: Callable[[LayerReport], None] | None = None,
) -> ModelProto:
    """A copy of `model` with exact zeros by `scheme`: see `prune_layers`, whose model this is. Without a scheme it is
    the one that `precision` on `target` (None: this CPU) likes: see `preferred_scheme`."""
    scheme = preferred_scheme(precision, target) if scheme is None else scheme
    return prune_layers(model, scheme, sparsity, ignore, report=report).model


def prune_layers(
    model: str | Path | bytes | ModelProto,
    scheme: str | Scheme,
    sparsity: float | None = None,
    ignore: Sequence[str] = (),
    *,
    report: Callable[[LayerReport], None] | None = None,
) -> PruneResult:
    """Prune every ungrouped Conv, Gemm, MatMul with a constant matrix, GRU and LSTM that is not
    ignored.

    model: path, bytes, or a ModelProto, which stays as it is. sparsity: fraction of zeros of each
    weight; n:m says its own. ignore: names of nodes or initialisers, or `re:` and a pattern.
    report: called with each layer when done.

    A weight that several layers share is pruned once; one that something else reads too is copied
    first, so that the other reader keeps what it had. Layers that the scheme doesn't fit stay
    dense, and their report says why. `metadata_props` of the result has prunus.scheme,
    prunus.sparsity, and prunus.layers (JSON by weight).
    Raises ModelError: unreadable, or weights that aren't finite. SchemeError: no such scheme or
    sparsity. RuleError: an entry of `ignore` that matches no layer.
    """
    scheme = parse(scheme)
    resolve_sparsity(scheme, sparsity)
    ignore = (ignore,) if isinstance(ignore, str) else ignore
    rules: list[tuple[str, tuple[Scheme, float | None] | None]] = [(name, None) for name in ignore]
    rules.append(("re:", (scheme, sparsity)))
    return prune_by_rules(model, rules, stated=scheme, optional=("re:",), report=report)


def prune_by_rules(
    model: str | Path | bytes | ModelProto,
    rules: Sequence[tuple[str, tuple[Scheme, float | None] | None]],
    *,
    stated: Scheme | None = None,
    optional: Sequence[str] = (),
    report: Callable[[LayerReport], None] | None = None,
) -> PruneResult:
    """As `prune_layers`, each layer by the first rule that matches: a name or `re:` pattern, and scheme with sparsity,
    or None for one that stays dense. What no rule matches stays dense too.

    stated: the scheme for `metadata_props`, None: all that the rules name. optional: rules that needn't match.
    """
    pruned = ModelProto()
    pruned.CopyFrom(load_model(model))
    found = list(weights(pruned))
    bare = _bare_layers(pruned, found)
    names: list[tuple[str, ...]] = [(w.node.name, w.layer, w.name) for w in found]
    names += [(node.name, layer_name(node)) for node in bare]
    select([rule for rule, _ in rules if rule not in optional], names)
    chosen = [next((how for rule, how in rules if matches(rule, known)), None) for known in names]
    reads = uses(pruned)
    reports: list[LayerReport] = []
    for name in dict.fromkeys(weight.name for weight in found):
        readers = [weight for weight in found if weight.name == name]
        ways = {id(w): how for w, how in zip(found, chosen, strict=False) if w.name == name}
        first = next((how for how in ways.values() if how is not None), None)
        open_to = [w for w in readers if ways[id(w)] is not None and ways[id(w)] == first]
        scheme, sparsity = first or (Scheme("unstructured"), 0.0)  # of which no use is made where none is open
        target = resolve_sparsity(scheme, sparsity)
        reports.append(_prune(pruned, readers, open_to, reads[name], scheme, target))
        if report is not None:
            report(reports[-1])
    for node in bare:
        if node.op_type in SLOTS and node.op_type != "MatMul":
            reports.append(LayerReport(layer_name(node), "", (), None, 0.0, "no constant weights"))
    overall = mean_sparsity(reports)
    schemes = ", ".join(sorted({str(layer.scheme) for layer in reports if layer.scheme}))
    write_metadata(pruned, stated or schemes, overall, reports)
    return PruneResult(pruned, tuple(reports), overall)


def _bare_layers(model: ModelProto, found: list[Weight]) -> list[NodeProto]:
    """Layers of the model in which no constant weight was found: not pruned, but a rule may name
    them.
    """
    seen = {weight.layer for weight in found}
    nodes = [node for graph, _ in graphs(model.graph) for node in graph.node]
    return [node for node in nodes if node.op_type in LAYERS and layer_name(node) not in seen]


def _prune(
    model: ModelProto,
    readers: list[Weight],
    open_to: list[Weight],
    n_reads: int,
    scheme: Scheme,
    target: float,
) -> LayerReport:
    """Prune one weight for those of its readers that are open to it, and say what was done."""
    weight = next(iter(open_to), readers[0])
    grouped = [reader for reader in open_to if group(reader.node) != 1]
    open_to = [reader for reader in open_to if group(reader.node) == 1]
    refusal = ""
    if weight.tensor.data_type not in FLOATS:
        refusal = f"{TensorProto.DataType.Name(weight.tensor.data_type).lower()} weights"
    elif not open_to:
        refusal = "grouped convolution" if grouped else "ignored"
    shape = tuple(weight.tensor.dims)
    if refusal:
        return LayerReport(weight.layer, weight.name, shape, None, 0.0, refusal)
    weight = open_to[0]
    array = read(weight)
    if misfit := fits(array.shape, scheme):
        sparsity = _sparsity(array)
        return LayerReport(weight.layer, weight.name, array.shape, None, sparsity, misfit.reason)
    sparse = np.where(project_stacked(array, scheme, target, n_stacked(weight)), array, array.dtype.type(0))
    notes = []
    if len(open_to) > 1:
        notes.append("shared with " + ", ".join(reader.layer for reader in open_to[1:]))
    name = weight.name
    if n_reads > len(open_to):
        name = _write_copy(model, open_to, sparse)
        notes.append(f"copied to {name}: {weight.name} has other readers")
    else:
        write(weight, sparse, weight.tensor)
    achieved = _sparsity(sparse)
    if abs(achieved - target) > TOLERANCE:
        notes.append(f"asked {target:.4g}: the nearest that its groups permit")
    return LayerReport(weight.layer, name, array.shape, scheme, achieved, "; ".join(notes))


def _write_copy(model: ModelProto, readers: list[Weight], sparse: NDArray[Any]) -> str:
    """Add the pruned weight as an initialiser of its own, and let `readers` read that."""
    name = f"{readers[0].name}.pruned"
    taken = uses(model)
    while name in taken:
        name += "_"
    tensor = model.graph.initializer.add(name=name)
    write(readers[0], sparse, tensor)
    if model.ir_version < 4:  # where every initialiser is also an input
        info = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(info)
    for reader in readers:
        reader.reader.input[reader.slot] = name
    return name


def _sparsity(array: NDArray[Any]) -> float:
    return 1 - int(np.count_nonzero(array)) / array.size if array.size else 0.0


def mean_sparsity(reports: Sequence[LayerReport]) -> float:
    """The fraction of zeros over all weights that were pruned."""
    sizes = [int(np.prod(layer.shape)) if layer.scheme else 0 for layer in reports]
    zeros = sum(size * layer.sparsity for size, layer in zip(sizes, reports, strict=True))
    return float(zeros / sum(sizes)) if sum(sizes) else 0.0


def write_metadata(model: ModelProto, scheme: Scheme | str, sparsity: float, reports: Sequence[LayerReport]) -> None:
    """Replace the entries prunus.scheme, prunus.sparsity and prunus.layers of `metadata_props`. scheme: or
    several as a text."""
    layers = {
        layer.weight or layer.name: {
            "layer": layer.name,
            "scheme": str(layer.scheme) if layer.scheme else None,
            "sparsity": round(layer.sparsity, 6),
            **({"note": layer.note} if layer.note else {}),
        }
        for layer in reports
    }
    ours = {
        "prunus.scheme": str(scheme),
        "prunus.sparsity": f"{sparsity:.6f}",
        "prunus.layers": json.dumps(layers, sort_keys=True),
    }
    kept = {prop.key: prop.value for prop in model.metadata_props if prop.key not in ours}
    onnx.helper.set_model_props(model, {**kept, **ours})
