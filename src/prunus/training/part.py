"""What every part of a recipe is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """A part of a recipe: immutable, and nothing in it that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
