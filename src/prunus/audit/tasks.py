"""Few-shot tasks: some classes, some images of each to fit a perturbation to, and others to judge it on."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from prunus.errors import AuditError


@final
@dataclass(frozen=True, eq=False)
class Source:
    """Images float32[n, ...] with classes int64[n], as victims take them."""

    name: str
    x: Tensor
    y: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """How many there are, counting those below the highest."""
        return int(self.y.max()) + 1


@final
@dataclass(frozen=True, eq=False)
class Tasks:
    """x [t, n, ...] and y [t, n] to fit, held_x [t, m, ...] and held_y [t, m] to judge: other images, same classes."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor


def draw(source: Source, tasks: int, classes: int, shots: int, held: int, chance: torch.Generator) -> Tasks:
    """Random tasks of `classes` classes, `shots` images of each to fit and `held` to judge.

    Raises AuditError: too few classes have that many images.
    """
    members = [found for c in range(source.classes) if len(found := (source.y == c).nonzero()[:, 0]) >= shots + held]
    if len(members) < classes:
        raise AuditError(
            f"{source.name}: {len(members)} classes have {shots + held} images, expected {classes}: {shots} shots to "
            f"fit and {held} to judge"
        )
    fit, judge = [], []
    for _ in range(tasks):
        chosen = torch.randperm(len(members), generator=chance)[:classes].tolist()
        picked = [members[c][torch.randperm(len(members[c]), generator=chance)[: shots + held]] for c in chosen]
        fit.append(torch.cat([p[:shots] for p in picked]))
        judge.append(torch.cat([p[shots:] for p in picked]))
    a, b = torch.stack(fit), torch.stack(judge)
    return Tasks(source.x[a], source.y[a], source.x[b], source.y[b])
