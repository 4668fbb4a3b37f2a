"""The answer of a function that declines: not False, but why."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Refusal:
    """Why something was declined, as one line that can be shown to a user."""

    reason: str
