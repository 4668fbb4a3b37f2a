"""Examples from an owner's network: signed gradients towards a target, under weight noise, in high frequencies.

Works on shares of the input's range, 0 to 1; what comes out is levels, so that sending it as a picture changes nothing.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from prunus.fingerprint.disturb import Weights, disturbance
from prunus.fingerprint.domain import TOP, Domain, Levels
from prunus.fingerprint.highpass import high_pass
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import Owner, as_scores, padded
from prunus.training.progress import TrainingStep

REACH = 2.5  # steps, if all of one sign, go so many times as far as an example may; Madry et al., ICLR 2018


def generate(
    owner: Owner,
    domain: Domain,
    method: Method,
    starts: Levels,
    targets: NDArray[np.int64],
    seed: int,
    report: Callable[[TrainingStep], None] = lambda step: None,
) -> Levels:
    """uint8[n, ...]: for each start an example that the owner's network is to call its target. All are computed at a
    time, or as many as the network takes; the same inputs give the same examples.

    Source: Wang et al., "Characteristic Examples: High-Robustness, Low-Transferability Fingerprinting of Neural
    Networks", IJCAI 2021, arXiv:2105.07078. The paper's constants aren't known; weights that aren't matrices and up
    stay undisturbed, and the filter holds for the perturbation.
    """
    size = owner.batch or len(starts)
    parts = []
    for at in range(0, len(starts), size):
        part = slice(at, at + size)
        x0 = padded(torch.from_numpy(starts[part].astype(np.float32) / TOP), owner.batch)
        t = padded(torch.from_numpy(targets[part]), owner.batch)
        parts.append(_descend(owner, domain, method, x0, t, seed + at, report)[: len(starts[part])])
    made = np.rint(torch.cat(parts).numpy() * TOP).astype(np.int16)
    near = starts.astype(np.int16)
    near_enough: Levels = np.clip(made, near - method.most, near + method.most).clip(0, TOP).astype(np.uint8)
    return near_enough


def _descend(
    owner: Owner,
    domain: Domain,
    method: Method,
    x0: Tensor,
    targets: Tensor,
    seed: int,
    report: Callable[[TrainingStep], None],
) -> Tensor:
    low, width = (torch.from_numpy(bound) for bound in domain.bounds())
    draw = disturbance(owner.module, method, seed)
    eps, n_draws = method.most / TOP, method.draws if method.robust else 1
    step = max(REACH * eps / method.steps, 1 / TOP)
    x = x0.clone()

    def loss(shares: Tensor, weights: Weights) -> Tensor:
        outputs = functional_call(owner.module, weights, (low + shares * width,))
        return functional.cross_entropy(as_scores(outputs, owner.probabilities), targets, reduction="sum")

    for done in range(method.steps):
        gradient, lost = torch.zeros_like(x), 0.0
        for _ in range(n_draws):
            shares = x.detach().requires_grad_(True)
            value = loss(shares, draw() if method.robust else {})
            gradient += torch.autograd.grad(value, shares)[0]
            lost += float(value.detach())
        if method.kind == "ltrc":  # that of a perturbation which is filtered; then its sign isn't of one frequency
            gradient = high_pass(gradient, method.cutoff)
        moved = x - x0 - step * gradient.sign()
        if method.kind == "ltrc":
            moved = high_pass(moved, method.cutoff)
        x = (x0 + moved.clamp(-eps, eps)).clamp(0, 1)
        report(TrainingStep("examples", done + 1, method.steps, lost / n_draws / len(x)))
    return x
