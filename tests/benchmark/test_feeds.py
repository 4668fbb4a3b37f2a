"""Shapes and random inputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunus.benchmark.feeds import DTYPES, Input, dtype_of, onnx_inputs, random_feeds, resolve_shapes
from prunus.errors import FeedError, ModelError
from tests.runtime.networks import classifier, two_ports

X = Input("x", ("N", 3, "H", 8), "tensor(float)")
FIXED = Input("y", (2, 5), "tensor(int64)")


def test_inputs_of_a_file(tmp_path: Path) -> None:
    model = classifier("batch")
    model.graph.input.append(onnx.helper.make_tensor_value_info("w0", onnx.TensorProto.FLOAT, [24, 3, 3, 3]))
    onnx.save(model, tmp_path / "m.onnx")
    assert onnx_inputs(tmp_path / "m.onnx") == [Input("x", ("batch", 3, 8, 8), "tensor(float)")]
    onnx.save(two_ports(), tmp_path / "two.onnx")
    assert [port.name for port in onnx_inputs(tmp_path / "two.onnx")] == ["a", "b"]


def test_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"junk" * 9)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        onnx_inputs(tmp_path / "m.onnx")


def test_resolve() -> None:
    assert resolve_shapes([X, FIXED], {"x": (4, 3, 9, 8)}) == {"x": (4, 3, 9, 8), "y": (2, 5)}
    batch = Input("x", ("batch", 3), "tensor(float)")
    assert resolve_shapes([batch], {}) == {"x": (1, 3)}
    assert resolve_shapes([batch], {}, batch=7) == {"x": (7, 3)}
    assert resolve_shapes([Input("x", ("4*batch", 3), "tensor(float)")], {}, batch=2) == {"x": (8, 3)}
    assert resolve_shapes([FIXED], {}, batch=2) == {"y": (2, 5)}


@pytest.mark.parametrize(
    ("ports", "given", "batch", "facts"),
    [
        ([X], {}, None, r"m: input 'x'.*'H'.*dimension 2"),
        ([X], {"z": (1,)}, None, r"'z'.*x"),
        ([X], {"x": (1, 4, 8, 8)}, None, r"\[1, 4, 8, 8\].*3"),
        ([X], {"x": (1, 3, 8)}, None, r"\[1, 3, 8\]"),
        ([FIXED], {}, 3, r"'y'.*fixed batch of 2.*3"),
    ],
)
def test_resolve_refuses(ports: list[Input], given: dict[str, tuple[int, ...]], batch: int | None, facts: str) -> None:
    with pytest.raises(FeedError, match=facts):
        resolve_shapes(ports, given, batch, "m")


def test_random_feeds_are_the_same_for_a_seed() -> None:
    shapes = {"x": (2, 3, 4, 8), "y": (2, 5)}
    one, two, other = (random_feeds([X, FIXED], shapes, seed) for seed in (0, 0, 1))
    assert {name: (a.shape, a.dtype.name) for name, a in one.items()} == {
        "x": ((2, 3, 4, 8), "float32"), "y": ((2, 5), "int64"),
    }  # fmt: skip
    np.testing.assert_array_equal(one["x"], two["x"])
    assert not np.array_equal(one["x"], other["x"])
    assert set(np.unique(one["y"])) <= {0, 1}


@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_can_be_fed(kind: str) -> None:
    port = Input("x", (3,), kind)
    assert random_feeds([port], {"x": (3,)}, 0)["x"].dtype.name == DTYPES[kind]


def test_text_cant_be_fed() -> None:
    with pytest.raises(FeedError, match=r"tensor\(string\)"):
        dtype_of(Input("x", (3,), "tensor(string)"))
