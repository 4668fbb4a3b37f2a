"""The toy of tests/training as a recipe of `prunus search`."""

from pathlib import Path
from typing import Any

from tests.training.toy import write_toy


def write_search(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write network and data there; the recipe of them, with changes at its top."""
    toy = write_toy(folder)
    return {
        "model": toy["model"],
        "data": toy["data"],
        "optimizer": toy["optimizer"],
        "epochs": {"dense": 1, "search": 2, "finetune": 1},
        "budget": {"macs": 0.5},
        **changes,
    }
