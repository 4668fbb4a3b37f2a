"""What `compile` was asked for in precision, and how a graph gets there: ranges, budget, what is said of the rest."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.calibrate import METHODS, calibrate, checked, joined
from prunus.compiler.mixed import layers_to_keep
from prunus.compiler.precision import PACKS, lower
from prunus.compiler.translate import spell_out
from prunus.errors import CalibrationError, PrunusWarning, TargetError, UnsupportedError
from prunus.graph.ir import Format, Graph
from prunus.kernels.isa import Isa

SAMPLES = 8  # calibration batches on which an error budget is checked


@dataclass(frozen=True)
class Wish:
    """Precision and its terms, as `compile` takes them. `strict`: refuse what can't be had.

    Raises TargetError: a precision or method that doesn't exist, a budget that is none.
    """

    precision: str = "fp32"
    calibration: Iterable[Mapping[str, Any]] | None = None
    method: str = "mse"
    budget: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", *PACKS):
            raise TargetError(f"precision {self.precision!r}: expected one of fp32, {', '.join(PACKS)}")
        if self.method not in METHODS:
            raise TargetError(f"calibration method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.budget is not None and not self.budget > 0:
            raise TargetError(f"error budget {self.budget}: expected a positive fraction of the outputs")
        if self.budget is not None and self.calibration is None and self.precision != "fp32":
            raise CalibrationError(f"error budget {self.budget}: no calibration data to measure errors on")


def packable(graph: Graph) -> list[str]:
    """Layers whose inputs would be packed: the weights of others only are held in lower precision."""
    return [node.name for node in graph.nodes if node.op in ("conv", "gemm")]


@dataclass
class Lowering:
    """Graphs of one model in the precision wished for; what calibration found is kept from the first on."""

    wish: Wish
    isa: Isa
    code: bytes
    threads: int
    progress: Callable[[str], None] | None = None
    formats: Mapping[str, Format] | None = None
    means: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)

    def apply(self, graph: Graph, *, quiet: bool = False) -> tuple[Graph, Mapping[str, str]]:
        """The graph, and for each layer that stays in fp32 against the wish why it does. `quiet`: it was said before.

        Raises CalibrationError, FeedError: no ranges to be had. UnsupportedError: strict, and a layer stays in fp32.
        """
        wish = self.wish
        if wish.precision == "fp32":
            return graph, {}
        graph = spell_out(graph)
        never: Mapping[str, str] = {}
        if wish.precision == "bf16" and not self.isa.bf16:
            never = dict.fromkeys(packable(graph), f"{self.isa.target} has no instructions for it")
        if self.formats is None:
            self._prepare(graph, never)
        lowered = lower(graph, wish.precision, self.formats or {}, {**self.keep, **never}, self.means)
        said = {name: why for name, why in lowered.refused.items() if name in never or name not in self.keep}
        self._say({} if quiet else said)
        return lowered.graph, lowered.refused

    def _prepare(self, graph: Graph, never: Mapping[str, str]) -> None:
        wish, known = self.wish, joined(graph, graph.formats)
        batches = [] if wish.calibration is None else list(wish.calibration)
        if wish.precision == "int8" and batches:
            found = calibrate(graph, batches, wish.method, self.isa, self.code, self.threads)
            known, self.means = {**found.formats, **known}, found.means
        elif wish.precision == "int8" and wish.calibration is not None:
            raise CalibrationError("calibration: no batches; int8 needs a few of real inputs")
        elif wish.precision == "int8" and not known and packable(graph):
            raise CalibrationError(
                "precision 'int8': no calibration data, and the model holds no ranges: give a few batches of real "
                "inputs (calibration=[{...}] or --calibration FILE)"
            )
        self.formats = known
        if wish.budget is not None:
            samples = list(checked(graph, batches))[:SAMPLES]
            self.keep = layers_to_keep(
                graph, wish.precision, known, self.means, samples, wish.budget, self.isa, self.code, self.threads,
                self.progress, never,
            )  # fmt: skip

    def _say(self, reasons: Mapping[str, str]) -> None:
        """Warn of layers that stay in fp32, or refuse them."""
        if not reasons:
            return
        name, reason = next(iter(reasons.items()))
        others = f" (and {len(reasons) - 1} more layers)" if len(reasons) > 1 else ""
        text = f"precision {self.wish.precision!r}: layer {name!r}{others}: {reason}"
        if self.wish.strict:
            raise UnsupportedError(text)
        warnings.warn(f"{text}; computed in fp32", PrunusWarning, stacklevel=2)
