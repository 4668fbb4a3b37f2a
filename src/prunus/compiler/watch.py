"""What a compilation says of its search for the fastest way to compute each layer, for whoever watches."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Tuning:
    """Where the search is; as text, a line.

    index: of `layer` among `layers`, from 0. measuring: how many candidates are being measured now, 0 where the layer
    is decided. tried: candidates measured before that. choice, ms: the fastest of those. gain: how many times as fast
    it is as the first candidate, the one that is taken without measuring. All None before anything was measured.
    """

    layer: str
    index: int
    layers: int
    measuring: int = 0
    tried: int = 0
    choice: str | None = None
    ms: float | None = None
    gain: float | None = None

    @property
    def decided(self) -> bool:
        return self.measuring == 0

    def __str__(self) -> str:
        return f"layer {self.index + 1} of {self.layers}, {self.layer}: {self.found}"

    @property
    def found(self) -> str:
        """The best choice so far, and what is measured."""
        parts = []
        if self.choice is not None:
            ms = "" if self.ms is None else f" {self.ms:.3f} ms"
            gain = "" if self.gain is None else f", {self.gain:.2f} times as fast as the first of {self.tried}"
            parts.append(f"{self.choice}{ms}{gain}")
        if not self.decided:
            parts.append(f"measuring {self.measuring}{' more' if self.choice else ''}")
        return "; ".join(parts)
