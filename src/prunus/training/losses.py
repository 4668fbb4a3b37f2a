"""Losses of a recipe: of labels, and of a teacher's answers."""

from typing import Literal

import torch
from torch import Tensor, nn

from prunus.errors import TrainingError
from prunus.training.recipe import Distil

Kind = Literal["cross-entropy", "mse"]


def task_loss(kind: Kind, answers: Tensor, y: Tensor) -> Tensor:
    """The mean loss of a batch: classes are along axis 1."""
    if kind == "mse":
        return nn.functional.mse_loss(answers.float(), y.float().reshape(answers.shape))
    return nn.functional.cross_entropy(answers.float(), y)


def distilled(kind: Kind, loss: Tensor, answers: Tensor, taught: Tensor, how: Distil) -> Tensor:
    """The loss, with the teacher's part in it. Source: as `Distil`; mse has no temperature."""
    if kind == "mse":
        return torch.lerp(loss, nn.functional.mse_loss(answers.float(), taught.float()), how.weight)
    student = nn.functional.log_softmax(answers.float() / how.temperature, 1)
    teacher = nn.functional.log_softmax(taught.float() / how.temperature, 1)
    per_answer = nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1).mean()
    return torch.lerp(loss, per_answer * how.temperature**2, how.weight)


def check_answers(kind: Kind, answers: object, y: Tensor, classes: int | None, where: str) -> None:
    """Do the network's answers suit the labels?

    Raises TrainingError: no, and why.
    """
    if not isinstance(answers, Tensor):
        raise TrainingError(f"model: returned a {type(answers).__name__}, expected one tensor")
    if kind == "mse":
        if answers.numel() != y.numel():
            raise TrainingError(f"{where}: y is {list(y.shape)}, expected {list(answers.shape)} as the model answers")
        return
    if y.is_floating_point():
        raise TrainingError(f"{where}: y has fractions, expected whole numbers as labels for loss cross-entropy")
    if answers.ndim < 2 or answers.shape[:1] + answers.shape[2:] != y.shape:
        raise TrainingError(f"{where}: y is {list(y.shape)} for answers {list(answers.shape)} of the model")
    highest = max(classes or 0, int(y.max()) + 1)
    if highest > answers.shape[1]:
        raise TrainingError(f"{where}: y has label {highest - 1}, and the model tells {answers.shape[1]} classes apart")
