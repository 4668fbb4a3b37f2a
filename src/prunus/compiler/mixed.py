"""Mixed precision: as many layers in lower precision as an error budget allows, by measured errors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.precision import lower
from prunus.compiler.translate import translate
from prunus.compiler.tune import Tuner
from prunus.graph.ir import Format, Graph
from prunus.kernels.isa import Isa
from prunus.runtime.artefact import pack
from prunus.runtime.session import Session

Outputs = list[list[NDArray[Any]]]
REASON = "the error budget asks for it"


def layers_to_keep(
    graph: Graph, precision: str, formats: Mapping[str, Format], means: Mapping[str, NDArray[np.float32]],
    batches: Sequence[Mapping[str, NDArray[Any]]],
    budget: float, isa: Isa, code: bytes, threads: int, progress: Callable[[str], None] | None = None,
    never: Mapping[str, str] | None = None,
) -> dict[str, str]:  # fmt: skip
    """Layers that stay float32, each with the reason, so that the error on `batches` is at most `budget`.

    The error is the root mean square difference from float32 over the root mean square of float32, largest over
    outputs. Layers are taken out in the order of the error that each causes alone, as few as do. Those in `never` stay
    float32 whatever the error.
    """

    def outputs(graph: Graph) -> Outputs:
        tuner = Tuner(isa, threads, "off", None, lambda _: "")
        program, constants = pack(translate(graph, isa, tuner.decide))
        session = Session(program, code, constants, threads)
        return [session.run(None, batch) for batch in batches]

    exact = outputs(graph)

    def error(keep: Mapping[str, str]) -> float:
        kept = {**keep, **(never or {})}
        return relative_error(outputs(lower(graph, precision, formats, kept, means).graph), exact)

    if error({}) <= budget:
        return {}
    refused = lower(graph, precision, formats, never).refused
    layers = [n.name for n in graph.nodes if n.op in ("conv", "gemm", "recurrent") and n.name not in refused]
    alone = {}
    for name in layers:
        alone[name] = error(dict.fromkeys((other for other in layers if other != name), REASON))
        if progress:
            progress(name)
    worst = sorted(layers, key=lambda name: -alone[name])
    few, enough = 0, len(worst)
    while few + 1 < enough:
        middle = (few + enough) // 2
        if error(dict.fromkeys(worst[:middle], REASON)) <= budget:
            enough = middle
        else:
            few = middle
    return dict.fromkeys(worst[:enough], REASON)


def relative_error(found: Outputs, exact: Outputs) -> float:
    """Largest over outputs: root mean square difference over root mean square."""
    errors = []
    for got, expected in zip(zip(*found, strict=True), zip(*exact, strict=True), strict=True):
        difference = sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in zip(got, expected, strict=True))
        size = sum(float((b.astype(np.float64) ** 2).sum()) for b in expected)
        errors.append((difference / size) ** 0.5 if size else float(difference > 0))
    return max(errors)
