"""How large a perturbation may be, and what of it an input takes: all attacks project and add by this."""

from dataclasses import dataclass, replace
from typing import Literal, final

from torch import Tensor, linalg

from prunus.errors import AuditError

Norm = Literal["linf", "l2"]
NORMS = ("linf", "l2")


@final
@dataclass(frozen=True)
class Ball:
    """norm: of one perturbation. eps: its largest value, in units of the data. low, high: range of perturbed inputs."""

    eps: float
    norm: Norm = "linf"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise AuditError(f"norm {self.norm!r}: expected one of {', '.join(NORMS)}")
        if not 0 < self.eps < float("inf"):
            raise AuditError(f"eps {self.eps:g}: expected a finite number above 0")
        if not float("-inf") < self.low < self.high < float("inf"):
            raise AuditError(f"range {self.low:g},{self.high:g}: expected finite numbers, the lower one first")

    def scaled(self, factor: float) -> "Ball":
        """With `factor` times the eps."""
        return replace(self, eps=self.eps * factor)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbations [t, ...] of the ball, each for itself."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        length = size(delta, "l2").reshape(-1, *(1,) * (delta.ndim - 1))
        return delta * (self.eps / length.clamp_min(1e-30)).clamp_max(1.0)

    def add(self, x: Tensor, delta: Tensor) -> Tensor:
        """Inputs [t, n, ...] with perturbations [t, ...], cut to the range.

        An input that is outside of the range already stays as it is where the perturbation doesn't move it.
        """
        moved = x + delta.unsqueeze(1)
        return moved.clamp(x.clamp_max(self.low), x.clamp_min(self.high))


def size(delta: Tensor, norm: Norm) -> Tensor:
    """The norms [t] of perturbations [t, ...]."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else linalg.vector_norm(flat, dim=1)
