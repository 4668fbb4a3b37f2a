"""Samples out of arrays, folders and functions, and what is said where there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.errors import TrainingError
from prunus.training.data import Samples, read_data
from prunus.training.standard import Data
from tests.training.toy import write_toy


def read(folder: Path, shape: tuple[int, ...] | None = None, **keys: Any) -> tuple[Samples, Samples]:
    given = {"train": str(folder / "train.npz"), "validation": str(folder / "validation.npz"), **keys}
    return read_data(Data(**given), shape)


def paint(folder: Path, name: str, colour: tuple[int, int, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), colour).save(folder / name)


def test_arrays_are_taken_by_number(tmp_path: Path) -> None:
    write_toy(tmp_path)
    train, validation = read(tmp_path)
    stored = np.load(tmp_path / "train.npz")
    x, y = train.take([3, 1])
    np.testing.assert_array_equal(x.numpy(), stored["x"][[3, 1]])
    assert y.tolist() == stored["y"][[3, 1]].tolist()
    assert (len(train), len(validation), train.classes) == (200, 101, 4)


def test_bytes_are_pixels(tmp_path: Path) -> None:
    x = np.arange(2 * 3 * 1 * 1, dtype=np.uint8).reshape(2, 3, 1, 1)
    np.savez(tmp_path / "p.npz", x=x, y=[0, 1])
    both = {"train": str(tmp_path / "p.npz"), "validation": str(tmp_path / "p.npz")}
    train, _ = read_data(Data(**both, mean=(1.0, 2.0, 3.0), std=2.0, bgr=True), None)
    assert train.take([1])[0].flatten().tolist() == [2.0, 1.0, 0.0]  # (5 - 1) / 2, (4 - 2) / 2, (3 - 3) / 2


def test_folders_are_classes(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        paint(tmp_path / part / "b", "1.png", (0, 255, 0))
        paint(tmp_path / part / "a", "2.png", (255, 0, 0))
    both = {part: str(tmp_path / part) for part in ("train", "validation")}
    train, _ = read_data(Data(**both), (3, 2, 2))
    x, y = train.take([0, 1])
    assert y.tolist() == [0, 1]
    assert x.shape == (2, 3, 2, 2)
    assert x[:, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert read_data(Data(**both, bgr=True), (3, 2, 2))[0].take([0])[0][0, :, 0, 0].tolist() == [0, 0, 1]
    with pytest.raises(TrainingError, match=r"model\.input is missing"):
        read_data(Data(**both), None)
    paint(tmp_path / "validation" / "c", "3.png", (0, 0, 0))
    with pytest.raises(TrainingError, match="class c isn't in both"):
        read_data(Data(**both), (3, 2, 2))
    (tmp_path / "train" / "d").mkdir()
    with pytest.raises(TrainingError, match=r"train/d: no images"):
        read_data(Data(**both), (3, 2, 2))


def test_functions_return_datasets(tmp_path: Path) -> None:
    write_toy(tmp_path)
    train, _ = read(tmp_path, train=f"{tmp_path}/net.py:pairs")
    x, y = train.take([2, 5])
    assert (x.shape, y.tolist(), x[0, 0, 0, 0]) == ((2, 1, 8, 8), [2, 1], torch.tensor(2.0))
    for name, words in (
        ("number", "returned a int, expected a dataset"),
        ("fails", "ZeroDivisionError"),
        ("absent", "no function 'absent'"),
    ):
        with pytest.raises(TrainingError, match=words):
            read(tmp_path, train=f"{tmp_path}/net.py:{name}")
    with pytest.raises(TrainingError, match="no pair of x and y"):
        read(tmp_path, train=f"{tmp_path}/net.py:lonely")[0].take([0])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 1))}, "no array 'y'; it has x"),
        ({"x": np.zeros((2, 1)), "y": np.zeros(3)}, r"x is \[2, 1\] and y \[3\]"),
        ({"x": np.full((2, 1), np.nan), "y": np.zeros(2, int)}, "x has values that aren't finite"),
        ({"x": np.zeros((2, 1)), "y": np.array([0, -1])}, "y has a label -1"),
        ({"x": np.zeros((2, 1)), "y": np.array(["a", "b"])}, "y is <U1, expected numbers"),
        ({"x": np.zeros((0, 1)), "y": np.zeros(0, int)}, "no samples"),
    ],
)
def test_arrays_that_are_no_data(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_toy(tmp_path)
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(TrainingError, match=f"odd.npz: {words}"):
        read(tmp_path, train=str(tmp_path / "odd.npz"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write_toy(tmp_path)
    (tmp_path / "text.npz").write_text("no")
    for train, words in (
        ("none.npz", "No such file"),
        ("text.npz", "not an npz"),
        ("nowhere", "no such folder"),
        ("none.py:f", "no file"),
    ):
        with pytest.raises(TrainingError, match=words):
            read(tmp_path, train=str(tmp_path / train))
