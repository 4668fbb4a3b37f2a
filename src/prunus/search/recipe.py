"""Recipes of `prunus search`: a network and data as for `prunus train`, a budget, and for how long to search."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from prunus.training.part import Count, Part, Positive
from prunus.training.recipe import load_as
from prunus.training.standard import Checkpointing, Data, Network, Optimizer

Share = Annotated[float, Field(gt=0, le=1)]


class SearchEpochs(Part):
    """dense: of training before, where the network has no weights yet. search: in which widths are found. finetune:
    with those widths. A method without a search fine-tunes for the epochs of both."""

    dense: Count = 0
    search: Annotated[int, Field(ge=1)] = 2
    finetune: Count = 8


class Budget(Part):
    """One of: macs, weights: the share that stays. latency: milliseconds, at batch 1, as measured here."""

    macs: Share | None = None
    weights: Share | None = None
    latency: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'}, expected one of macs, weights and latency")
        return self


class SearchRecipe(Part):
    """What to search.

    method: what decides which channels stay; all but pas need no search. round_to: widths are multiples of so many
    channels; auto: the vector of this CPU. Not given: 1, and under a budget of milliseconds the vector, or a half of
    it, a quarter, ... where that doesn't meet the budget. search_rate: the search's learning rate, constant, over the
    optimizer's highest. recalibrate: batches from which BatchNorm takes new statistics once the widths stand.
    """

    version: Literal[1] = 1
    method: Literal["pas", "bn-gamma", "uniform", "magnitude"] = "pas"
    epochs: SearchEpochs = SearchEpochs()
    budget: Budget
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    search_rate: Share = 1.0
    model: Network
    data: Data
    optimizer: Optimizer = Optimizer()
    loss: Literal["cross-entropy", "mse"] = "cross-entropy"
    precision: Literal["fp32", "bf16"] = "fp32"
    recalibrate: Count = 10
    seed: Count = 0
    checkpoint: Checkpointing = Checkpointing()


def load_search_recipe(
    source: "str | Path | Mapping[str, Any] | SearchRecipe", settings: Sequence[str] = ()
) -> SearchRecipe:
    """The recipe of a YAML file or a dict, as `prunus.training.recipe.load_recipe` reads others.

    Raises RecipeError: as that.
    """
    return load_as(SearchRecipe, source, settings)
