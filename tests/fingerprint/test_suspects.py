"""Callables, files and artefacts as suspects, and those that don't fit."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import prunus
from prunus.errors import SuspectError
from prunus.fingerprint.answers import ask
from prunus.fingerprint.suspects import Suspect, suspect_of_file
from tests.fingerprint.toy import SHAPE, made_up, network, write
from tests.runtime.networks import two_ports


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(0)
    return write(network().eval(), tmp_path_factory.mktemp("suspect") / "model.onnx")


def test_all_ways_to_run_a_model_agree(model: Path) -> None:
    prunus.compile(model, tune="off", threads=1).save(model.with_suffix(".prunus"))
    fixed = onnx.load(model)
    for port in (*fixed.graph.input, *fixed.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 3
    del fixed.graph.value_info[:]
    onnx.save(fixed, model.with_name("fixed.onnx"))
    suspects = [
        suspect_of_file(model), suspect_of_file(model, "prunus", 1), suspect_of_file(model.with_suffix(".prunus")),
        suspect_of_file(model.with_name("fixed.onnx")),
    ]  # fmt: skip
    assert [s.batch for s in suspects] == [None, None, None, 3]
    assert all(s.shape == SHAPE and s.classes == 10 for s in suspects)
    first, *others = [ask(s, made_up(50)).labels for s in suspects]
    for other in others:
        np.testing.assert_array_equal(first, other)
    assert len({s.digest for s in suspects}) == 3


def test_callables() -> None:
    made = made_up(50)
    labels = ask(Suspect("labels", lambda x: np.arange(len(x)) % 10), made).labels
    np.testing.assert_array_equal(labels, np.concatenate([np.arange(20) % 10, np.arange(20) % 10, np.arange(10)]))
    np.testing.assert_array_equal(ask(Suspect("scores", lambda x: np.eye(10)[np.full(len(x), 3)]), made).labels, 3)


@pytest.mark.parametrize(
    ("suspect", "said"),
    [
        (Suspect("s", lambda x: np.zeros((len(x), 7))), r"s: answers float64\[20, 7\], expected labels \[20\]"),
        (Suspect("s", lambda x: np.zeros(len(x))), r"answers float64\[20\]"),
        (Suspect("s", lambda x: np.full(len(x), 10)), "answers with label 10, expected 0 to 9"),
        (Suspect("s", lambda x: np.full((len(x), 10), np.nan)), "aren't finite"),
        (Suspect("s", lambda x: x, (3, 8, 8)), r"takes inputs of \[3, 8, 8\], expected \[1, 8, 8\]"),
        (Suspect("s", lambda x: x, (1, None, None), 12), "tells 12 classes apart, expected 10"),
    ],
)
def test_unlike(suspect: Suspect, said: str) -> None:
    with pytest.raises(SuspectError, match=said):
        ask(suspect, made_up(50))


def test_files_that_are_no_suspects(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    onnx.save(two_ports(), tmp_path / "two.onnx")
    for name, said in (
        ("none.onnx", "No such file"),
        ("bad.onnx", "not an ONNX file that onnxruntime opens"),
        ("two.onnx", "found 2 inputs"),
    ):
        with pytest.raises(SuspectError, match=said):
            suspect_of_file(tmp_path / name)
    whole = onnx.load(model)
    whole.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    whole.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x_float"], to=onnx.TensorProto.FLOAT))
    whole.graph.node[1].input[0] = "x_float"
    onnx.save(whole, tmp_path / "bytes.onnx")
    with pytest.raises(SuspectError, match=r"bytes.onnx: takes tensor\(uint8\), expected"):
        suspect_of_file(tmp_path / "bytes.onnx")
    with pytest.raises(SuspectError, match="engine 'tvm': expected onnxruntime or prunus"):
        suspect_of_file(model, "tvm")


def test_scores_need_a_suspect_that_has_them() -> None:
    with pytest.raises(SuspectError, match="labels only"):
        Suspect("s", lambda x: np.zeros(len(x), int)).scores(np.zeros((3, *SHAPE), np.float32))
