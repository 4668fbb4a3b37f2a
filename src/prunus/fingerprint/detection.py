"""Whether a suspect could tell examples from honest queries, and refuse them."""

import numpy as np
from numpy.typing import NDArray

from prunus.fingerprint.highpass import high_share

CUTOFF = 0.5


def detected(examples: NDArray[np.float32], honest: NDArray[np.float32], false_alarms: float = 0.01) -> float:
    """The share of examples that a threshold on the energy in high frequencies finds, which refuses a share of
    `false_alarms` of honest inputs; float32[n, ...] each. A simple detector: another one may find more."""
    scores, usual = high_share(examples, CUTOFF), high_share(honest, CUTOFF)
    return float((scores > np.quantile(usual, 1 - false_alarms)).mean())
