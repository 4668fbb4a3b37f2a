"""IPGuard: points near the decision boundary of the owner's network, as a fingerprint to compare with."""

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.fingerprint.domain import TOP, Domain, Levels
from prunus.fingerprint.owner import Owner

RATE = 1e-2


def ipguard(
    owner: Owner, domain: Domain, starts: Levels, first: NDArray[np.int64], seed: int, steps: int = 1000, k: float = 5.0
) -> tuple[Levels, NDArray[np.int64]]:
    """Examples uint8[n, ...] and what the owner's network calls them, which is what they are matched by.

    For a start of label i, and j drawn by chance: minimise ReLU(Z_i - Z_j + k) + ReLU(max of the others - Z_i) by Adam.
    Source: Cao, Jia and Gong, "IPGuard", AsiaCCS 2021, arXiv:1910.12903; rates and steps as in re-implementations. We
    keep inputs inside of their range.
    """
    generator = torch.Generator().manual_seed(seed)
    low, width = (torch.from_numpy(bound) for bound in domain.bounds())
    n, i = len(starts), torch.from_numpy(first)
    j = (i + torch.randint(1, owner.classes, (n,), generator=generator)) % owner.classes
    rows = torch.arange(n)
    x = (torch.from_numpy(starts.astype(np.float32)) / TOP).requires_grad_(True)
    optimizer = torch.optim.Adam([x], RATE)
    for _ in range(steps):
        z = owner.scores(low + x * width)
        others = z.clone()
        others[rows, i] = others[rows, j] = -torch.inf
        rest = others.amax(1) if owner.classes > 2 else z[rows, i]
        loss = (torch.relu(z[rows, i] - z[rows, j] + k) + torch.relu(rest - z[rows, i])).sum()
        if not loss.detach():
            break
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    made = np.rint(x.detach().numpy() * TOP).astype(np.uint8)
    return made, owner.labels(domain.values(made))
