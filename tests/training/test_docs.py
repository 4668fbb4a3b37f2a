"""The recipes on the pages are ones."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from prunus.search.recipe import load_search_recipe
from prunus.training.recipe import load_recipe
from prunus.training.sparseml import LEFT_OUT, PRUNING

DOCS = Path(__file__).parents[2] / "docs"


def test_recipes_on_the_page_of_training() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    recipes = [load_recipe(YAML(typ="safe").load(block)) for block in blocks]
    assert len(recipes) > 1 and all(recipe.layers for recipe in recipes)
    assert any(recipe.data for recipe in recipes), "one of them is for prunus train"


def test_the_page_of_sparseml_names_the_modifiers() -> None:
    page = (DOCS / "from-sparseml.md").read_text()
    for name in PRUNING:
        assert name in page
    assert sum(name in page for name in LEFT_OUT) >= 4


def test_recipes_on_the_page_of_widths() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "search.md").read_text(), re.DOTALL)
    first, second = (YAML(typ="safe").load(block) for block in blocks)
    assert load_search_recipe(first).budget.macs == 0.5
    assert load_recipe(second).model is not None
