"""Images and labels: of the size and classes that networks have, or an error that says which isn't."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.audit.data import read_labelled
from prunus.audit.victims import Victim, of_module
from prunus.errors import AuditError, TrainingError
from prunus.pruning.images import Scaling
from tests.audit.toy import trained, write_npz


@pytest.fixture(scope="module")
def victim() -> Victim:
    return of_module(trained(steps=1), (1, 8, 8), "net")


def folder(path: Path, size: int = 8, n: int = 3) -> Path:
    chance = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(chance.integers(0, 256, (size, size), np.uint8)).save(path / name / f"{i}.png")
    return path


def test_npz_and_folder(tmp_path: Path, victim: Victim) -> None:
    expected = write_npz(tmp_path / "d.npz", 20)
    found = read_labelled(str(tmp_path / "d.npz"), (victim,))
    assert torch.equal(found.source.x, expected.x) and torch.equal(found.source.y, expected.y)
    assert found.names == ()
    assert len(read_labelled(str(tmp_path / "d.npz"), (victim,), most=7).source.y) == 7
    found = read_labelled(str(folder(tmp_path / "images")), (victim,), Scaling((10.0,), (100.0,)))
    assert found.names == ("cat", "dog") and found.source.y.tolist() == [0, 0, 0, 1, 1, 1]
    first = np.asarray(Image.open(tmp_path / "images/cat/0.png"), np.float32)
    np.testing.assert_allclose(found.source.x[0, 0].numpy(), (first - 10) / 100, rtol=1e-6)


def test_other_sizes_only_if_asked(tmp_path: Path, victim: Victim) -> None:
    where = str(folder(tmp_path / "images", 10))
    with pytest.raises(AuditError, match=r"0\.png: 10x10 pixels, expected 8x8; with --resize"):
        read_labelled(where, (victim,))
    assert read_labelled(where, (victim,), resize=True).source.shape == (1, 8, 8)
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 1, 9, 9), np.float32), y=np.arange(4))
    with pytest.raises(AuditError, match=r"d\.npz: x is \[1, 9, 9\], expected \[1, 8, 8\]; with --resize"):
        read_labelled(str(tmp_path / "d.npz"), (victim,))
    assert read_labelled(str(tmp_path / "d.npz"), (victim,), resize=True).source.shape == (1, 8, 8)


def test_a_loader_in_python(tmp_path: Path, victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "import torch\ndef pairs():\n    return [(torch.full((1, 8, 8), i / 9), i % 4) for i in range(9)]\n"
    Path("mine.py").write_text(text)
    assert read_labelled("mine.py:pairs", (victim,)).source.y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.array([0, 1, 4])}, "label 4 of sample 2, expected 0 to 3"),
        ({"y": np.array([0.0, 1.0, 2.0])}, r"y is float32\[3\], expected whole numbers"),
        ({"y": np.zeros((3, 2), np.int64)}, r"y is int64\[3, 2\]"),
        ({"x": np.zeros((3, 3, 8, 8), np.float32)}, r"x is \[3, 8, 8\], expected \[1, 8, 8\]$"),
        ({"x": np.full((3, 1, 8, 8), np.nan, np.float32)}, "aren't finite"),
        ({"x": np.zeros((2, 1, 8, 8), np.float32)}, "as many of one"),
    ],
)
def test_refused(arrays: dict[str, Any], said: str, tmp_path: Path, victim: Victim) -> None:
    whole: dict[str, Any] = {"x": np.zeros((3, 1, 8, 8), np.float32), "y": np.arange(3)} | arrays
    np.savez(tmp_path / "d.npz", **whole)
    with pytest.raises((AuditError, TrainingError), match=said):
        read_labelled(str(tmp_path / "d.npz"), (victim,))


def test_other_byte_orders(tmp_path: Path, victim: Victim) -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    np.savez(tmp_path / "d.npz", x=x.astype(">f4"), y=np.arange(3, dtype=">i8"))
    found = read_labelled(str(tmp_path / "d.npz"), (victim,)).source
    np.testing.assert_array_equal(found.x.numpy(), x)
    assert found.y.tolist() == [0, 1, 2]


def test_an_empty_file_is_named(tmp_path: Path, victim: Victim) -> None:
    (tmp_path / "d.npz").touch()
    with pytest.raises(TrainingError, match=r"d\.npz: not an npz"):
        read_labelled(str(tmp_path / "d.npz"), (victim,))


def test_a_loader_s_odd_values_are_its_own(tmp_path: Path, victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text("import torch\ndef pairs():\n    return [(torch.ones(1, 8, 8) * float('nan'), 0)]\n")
    with pytest.raises(AuditError, match=r"odd\.py:pairs: x has values that aren't finite"):
        read_labelled("odd.py:pairs", (victim,))


def test_scales_are_of_the_networks_channels(tmp_path: Path, victim: Victim) -> None:
    with pytest.raises(AuditError, match=r"--mean has 3 numbers, and the networks take \[1, 8, 8\]"):
        read_labelled(str(folder(tmp_path / "images")), (victim,), Scaling((1.0, 2.0, 3.0)))


def test_fewer_images_are_of_all_classes_where_these_take_turns(tmp_path: Path, victim: Victim) -> None:
    write_npz(tmp_path / "d.npz", 160)
    counts = read_labelled(str(tmp_path / "d.npz"), (victim,), most=40).source.y.bincount(minlength=4)
    assert counts.sum() == 40 and counts.min() >= 3


def test_networks_that_differ_are_refused(tmp_path: Path, victim: Victim) -> None:
    write_npz(tmp_path / "d.npz", 8)
    other = of_module(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, 4)), (1, 9, 9), "other")
    with pytest.raises(AuditError, match=r"other takes \[1, 9, 9\] and has 4 classes, expected \[1, 8, 8\]"):
        read_labelled(str(tmp_path / "d.npz"), (victim, other))
