"""How examples are made: the paper's three kinds and their constants, as plain data."""

from dataclasses import dataclass
from typing import Any, Final, Literal, final

from prunus.errors import FingerprintError

Kind = Literal["c", "rc", "ltrc"]
KINDS: Final = ("c", "rc", "ltrc")
DRAWS: Final = ("uniform", "pruning")


@final
@dataclass(frozen=True)
class Method:
    """kind: c (plain), rc (under weight noise) or ltrc (under weight noise, and of high frequencies only).

    eps: how far an example may be from its start, as a share of the range of values. steps: of signed gradients.
    noise: half width of the uniform noise on a layer's weights, in their standard deviations. draws: of noise in each
    step, whose gradients are averaged. draw: uniform, or pruning, which instead of noise zeroes a random share of up to
    `noise` of each layer's smallest weights. cutoff: a frequency u + v goes where it is below this share of the longer
    side.

    Raises FingerprintError: a value outside of its range.
    """

    kind: Kind = "ltrc"
    eps: float = 0.7
    steps: int = 60
    noise: float = 0.7
    draws: int = 4
    draw: Literal["uniform", "pruning"] = "pruning"
    cutoff: float = 0.75

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FingerprintError(f"method {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.draw not in DRAWS:
            raise FingerprintError(f"draw {self.draw!r}: expected one of {', '.join(DRAWS)}")
        ranges = {"eps": (1 / 255, 1), "steps": (1, 100_000), "noise": (0, 10), "draws": (1, 1000), "cutoff": (0, 2)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise FingerprintError(f"{name}: found {value:g}, expected {least:g} to {most:g}")
        if self.draw == "pruning" and self.noise > 1:
            raise FingerprintError(f"noise: found {self.noise:g}, expected a share up to 1 of the weights")

    @property
    def robust(self) -> bool:
        """Are weights disturbed?"""
        return self.kind != "c" and self.noise > 0

    @property
    def most(self) -> int:
        """Levels that an example may differ from its start."""
        return int(self.eps * 255 + 1e-9)


def method_of(kind: str, **wishes: float | str | None) -> Method:
    """The method of a kind with its constants, but for those that are given.

    Raises FingerprintError: as Method.
    """
    given: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    return Method(**{"kind": kind, **given})
