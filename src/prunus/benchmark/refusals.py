"""What an engine says where it can't be raced."""

from typing import final

from prunus.errors import PrunusError


@final
class NotInstalled(PrunusError):
    """An engine whose package isn't there: says what to install."""


@final
class EngineRefusal(PrunusError):
    """An engine that doesn't take the model: says what it said."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says that isn't empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "refused")
