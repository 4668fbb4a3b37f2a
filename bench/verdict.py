"""Goals, and what was reached."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A goal, what was reached, and whether that is enough."""

    what: str
    value: float | None
    bound: float
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """pass, short, or not measured."""
        if self.value is None:
            return "not measured"
        return "pass" if (self.value <= self.bound if self.at_most else self.value >= self.bound) else "short"

    @property
    def asked(self) -> str:
        """At least or at most so much."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.4g}"
        return f"{self.what:60} {value}, {self.asked}: {self.verdict}"
