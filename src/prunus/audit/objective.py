"""What an attack makes small: how far a perturbed input is from being answered wrongly."""

from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from prunus.errors import AuditError

Kind = Literal["margin", "cross-entropy"]
KINDS = ("margin", "cross-entropy")


@final
@dataclass(frozen=True)
class Objective:
    """margin: the logit of the true class over the best other one, not below -kappa. cross-entropy: the probability's
    logarithm, not below -kappa. target: the class that answers are to become; None: any other one. l1: what mean
    absolute value of the perturbation, in units of eps, costs besides.
    Source: Carlini & Wagner, S&P 2017, arXiv:1608.04644, for the margin.
    """

    kind: Kind = "margin"
    kappa: float = float("inf")
    target: int | None = None
    l1: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise AuditError(f"loss {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.l1 < 0 or self.kappa < 0:
            raise AuditError(f"kappa {self.kappa:g}, l1 {self.l1:g}: expected 0 and above")

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """One per row of logits [n, classes]; y [n]."""
        if self.kind == "cross-entropy":
            if self.target is None:
                found = -functional.cross_entropy(logits, y, reduction="none")
            else:
                found = functional.cross_entropy(logits, torch.full_like(y, self.target), reduction="none")
        else:
            found = margins(logits, y) if self.target is None else -margins(logits, torch.full_like(y, self.target))
        return found.clamp_min(-self.kappa)

    def succeeded(self, answers: Tensor, y: Tensor) -> Tensor:
        """Bool: which answers are what the attack is after."""
        return answers != y if self.target is None else answers == self.target


MARGIN: Final = Objective()


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """The logit of class y [n] over the largest other one."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return own - others
