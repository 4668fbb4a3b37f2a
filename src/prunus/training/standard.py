"""The parts of a recipe that `prunus train` needs beyond pruning: a network, data, an optimiser.

Paths are relative to the folder that is current. A recipe that names functions runs them: take recipes only from whom
you would take a program.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from prunus.training.part import Count, Part, Positive

Sizes = tuple[Annotated[int, Field(ge=1)], ...]
Numbers = float | tuple[float, float, float]


class Network(Part):
    """build: `package.module:function` or `file.py:function` that returns the module, `timm:NAME`, or an ONNX file.
    arguments: of the function. weights: a file of safetensors, or of torch with nothing but tensors. input: of one
    sample its shape, as [1, 28, 28]."""

    build: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    weights: str | None = None
    input: Sizes | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not self.build.endswith(".onnx") and not all(self.build.partition(":")):
            raise ValueError(
                f"build {self.build!r}: expected package.module:function, file.py:function, timm:NAME or a file.onnx"
            )
        if self.build.endswith(".onnx") and self.arguments:
            raise ValueError("arguments: an ONNX file takes none")
        return self


class Augment(Part):
    """What training images go through. shift: pixels at most, each way. flip: left to right, half of them."""

    shift: Count = 0
    flip: bool = False


class Data(Part):
    """train, validation: an npz with x and y, a folder with a folder of images per class, or `file.py:function` that
    returns a torch Dataset of pairs.

    batch_size: of all processes together. An epoch leaves out samples that don't fill a batch, other ones each time.
    mean, std, bgr: of images, and of x where it is uint8; value = (pixel - mean) / std.
    """

    train: str
    validation: str
    batch_size: Annotated[int, Field(ge=1)] = 64
    mean: Numbers = 0.0
    std: Numbers = 255.0
    bgr: bool = False
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if 0 in (self.std if isinstance(self.std, tuple) else (self.std,)):
            raise ValueError("std: found 0, expected other numbers")
        return self


class Optimizer(Part):
    """rate: the highest learning rate. momentum: of sgd. warmup: epochs in which the rate rises to it; one-cycle
    rises in its own way. restart: the schedule begins anew when the masks stand, so that recovering has its own."""

    name: Literal["sgd", "adamw"] = "adamw"
    rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0)] = 0.0
    restart: bool = False


class DenseTraining(Part):
    """Epochs in which the dense network is trained first, where it has no weights yet. rate: else the optimizer's."""

    epochs: Annotated[int, Field(ge=1)]
    rate: Positive | None = None


class Checkpointing(Part):
    """How often a checkpoint is written: after so many steps, or else epochs."""

    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 1
