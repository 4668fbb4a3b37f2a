"""How far a training is, for those who watch it."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class TrainingStep:
    """A step of `total`; `str` tells what is going on in a line, with `more` at its end."""

    phase: str
    done: int
    total: int
    loss: float
    more: str = ""

    def __str__(self) -> str:
        return f"{self.phase}, step {self.done} of {self.total}, loss {self.loss:.4f}{self.more}"
