"""A learned optimiser: one small LSTM, the same for each coordinate of a perturbation, from gradients to updates.

Nothing in it depends on how many coordinates there are, so it works at every resolution.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.audit.ball import Ball
from prunus.audit.problem import Gradient
from prunus.errors import AuditError
from prunus.runtime.atomic import write_atomically

SHIPPED: Final = Path(__file__).with_name("optimiser.safetensors")
SEEN: Final[Mapping[str, int]] = {"plain": 3, "local": 7}  # what a coordinate is told: how many numbers
State = tuple[Tensor, Tensor]


@final
class Optimiser(nn.Module):
    """sees: "plain": the coordinate's gradient, relative to the largest and to the root mean square, and where it is.
    "local": also the gradient's means over 3x3, 5x5 and 9x9 neighbours, and how well images agree on it. hidden: of the
    LSTM. about: of what it was trained on, as text.
    Source: Andrychowicz et al., NIPS 2016, arXiv:1606.04474; Zhao et al., IJCAI 2022, arXiv:2009.13714.
    """

    def __init__(self, sees: str = "local", hidden: int = 16, about: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.sees, self.hidden, self.about = sees, hidden, dict(about or {})
        self.cell = nn.LSTMCell(SEEN[sees], hidden)
        self.head = nn.Linear(hidden, 1, bias=False)
        self.pull = nn.Parameter(torch.tensor(0.5))  # straight down the gradient: where training sets out from
        with torch.no_grad():
            self.head.weight *= 0.1

    def begin(self, delta: Tensor) -> State:
        """The state before the first step of perturbations [t, ...]: a row per coordinate."""
        nothing = delta.new_zeros(delta.numel(), self.hidden)
        return nothing, nothing

    def step(self, delta: Tensor, gradient: Gradient, state: State, ball: Ball) -> tuple[Tensor, State]:
        """The next perturbations, inside of the ball, and state."""
        told = _seen(self.sees, delta, gradient, ball)
        hidden, cell = self.cell(told, state)
        update = (self.head(hidden)[:, 0] - self.pull * told[:, 1]).reshape(delta.shape)
        return ball.project(delta + update * unit(delta, ball)), (hidden, cell)


def unit(delta: Tensor, ball: Ball) -> float:
    """How long coordinates are where a perturbation is as large as the ball."""
    return ball.eps if ball.norm == "linf" else ball.eps / float(delta[0].numel()) ** 0.5


def _seen(sees: str, delta: Tensor, gradient: Gradient, ball: Ball) -> Tensor:
    """float[t * d, n]: what each coordinate is told."""
    g = gradient.mean
    flat = (-1, *(1,) * (g.ndim - 1))
    top = g.flatten(1).abs().amax(1).clamp_min(1e-12).reshape(flat)
    told = [g / top, _relative(g), delta / unit(delta, ball)]
    if sees == "local":
        for k in (3, 5, 9):
            if g.ndim < 4:  # no rows and columns: the coordinate is its own neighbourhood
                told.append(told[1])
            else:
                planes = g.flatten(0, -3)[:, None]
                told.append(_relative(functional.avg_pool2d(planes, k, 1, k // 2).reshape(g.shape)))
        told.append(g / (g.abs() + gradient.spread).clamp_min(1e-12))
    return torch.stack(told, -1).reshape(-1, len(told))


def _relative(g: Tensor) -> Tensor:
    """To the root mean square of its task, softly cut."""
    flat = (-1, *(1,) * (g.ndim - 1))
    size = g.flatten(1).square().mean(1).sqrt().clamp_min(1e-12).reshape(flat)
    return torch.tanh(g / (2 * size))


def save(optimiser: Optimiser, path: Path) -> None:
    """Write a file of safetensors, with what there is to know beside the weights."""
    known = {"sees": optimiser.sees, "hidden": str(optimiser.hidden), "about": json.dumps(optimiser.about)}
    weights = {name: tensor.detach().contiguous() for name, tensor in optimiser.state_dict().items()}
    write_atomically(path, safetensors.torch.save(weights, known))


def load(path: Path = SHIPPED) -> Optimiser:
    """The optimiser of a file; the one that ships.

    Raises AuditError: not such a file.
    """
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            known = file.metadata() or {}
            made = Optimiser(known["sees"], int(known["hidden"]), json.loads(known["about"]))
            made.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError as error:
        raise AuditError(f"{path}: no such file, expected a trained optimiser") from error
    except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        raise AuditError(f"{path}: not a trained optimiser: {reason}") from error
    return made.eval().requires_grad_(False)
