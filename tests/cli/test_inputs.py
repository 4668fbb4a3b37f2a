"""Arrays and images from files."""

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from prunus.benchmark.feeds import Input
from prunus.cli.images import parse_scaling
from prunus.cli.inputs import read_feeds
from prunus.cli.options import parse_shapes
from prunus.errors import FeedError
from prunus.pruning.images import Scaling, read_image

PORT = Input("x", ("batch", 3, 4, 6), "tensor(float)")
SHAPES = {"x": (1, 3, 4, 6)}


@pytest.fixture
def red(tmp_path: Path) -> Path:
    Image.new("RGB", (12, 8), (200, 100, 50)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 4, 6, 3)])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Scaling(), (200 / 255, 100 / 255, 50 / 255)),
        (Scaling((127.0,), (128.0,)), (73 / 128, -27 / 128, -77 / 128)),
        (Scaling((50.0, 100.0, 200.0), (1.0, 2.0, 4.0), bgr=True), (0, 0, 0)),
    ],
)
def test_image(red: Path, shape: tuple[int, ...], how: Scaling, expected: tuple[float, ...]) -> None:
    array = read_image(red, shape, how)
    assert (array.shape, array.dtype) == (shape, np.float32)
    channels = array[0] if shape[1] == 3 else array[0].transpose(2, 0, 1)
    np.testing.assert_allclose(channels, np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 4, 6)), atol=1e-6)


def test_grey_image(red: Path) -> None:
    assert read_image(red, (1, 1, 4, 6), Scaling()).shape == (1, 1, 4, 6)


@pytest.mark.parametrize("shape", [(1, 10), (1, 5, 4, 6)])
def test_image_for_other_inputs(red: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(FeedError, match=r"red\.png.*1 or 3 channels"):
        read_image(red, shape, Scaling())


def test_images_make_a_batch(red: Path) -> None:
    feeds = read_feeds([str(red), str(red)], [PORT], SHAPES, Scaling())
    assert feeds["x"].shape == (2, 3, 4, 6)


def test_file_whose_name_has_an_equals_sign(tmp_path: Path) -> None:
    np.save(tmp_path / "a=b.npy", np.zeros(3))
    assert read_feeds([str(tmp_path / "a=b.npy")], [PORT], SHAPES, Scaling())["x"].shape == (3,)
    assert read_feeds([f"x={tmp_path}/a=b.npy"], [PORT], SHAPES, Scaling())["x"].shape == (3,)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png"])
@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00", b"PK\x03\x04", None])
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FeedError, match=name):
        read_feeds([str(tmp_path / name)], [PORT], SHAPES, Scaling())


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(FeedError, match=r"a\.npy"):
        read_feeds([str(tmp_path / "a.npy")], [PORT], SHAPES, Scaling())


def test_unknown_input() -> None:
    with pytest.raises(FeedError, match=r"'z'.*x"):
        read_feeds(["z=a.npy"], [PORT], SHAPES, Scaling())


def test_parts_that_dont_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2)))
    np.save(tmp_path / "b.npy", np.zeros((1, 3)))
    with pytest.raises(FeedError, match=r"\[1, 2\], \[1, 3\]"):
        read_feeds([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")], [PORT], SHAPES, Scaling())


@pytest.mark.parametrize(("mean", "std"), [("a", "1"), ("1,2", "1"), ("0", "0"), ("0", "1,0,1")])
def test_bad_scaling(mean: str, std: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_scaling(mean, std, False)


def test_shapes() -> None:
    assert parse_shapes(["x=1,3,224,224", "a=b:0=7"]) == {"x": (1, 3, 224, 224), "a=b:0": (7,)}
    assert parse_shapes(None) is None


@pytest.mark.parametrize("texts", [["x"], ["x="], ["=1"], ["x=1,-2"], ["x=0"], ["x=1,,2"], ["x=1", "x=2"]])
def test_bad_shapes(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match=texts[-1]):
        parse_shapes(texts)
