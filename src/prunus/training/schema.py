"""Writes docs/recipe.schema.json: python -m prunus.training.schema, in a clone."""

import json
from pathlib import Path

from prunus.training.recipe import recipe_schema

PATH = Path("docs") / "recipe.schema.json"


def text() -> str:
    """The file's contents."""
    return json.dumps(recipe_schema(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
