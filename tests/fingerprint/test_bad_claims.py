"""Claims that are worth nothing, and inputs that used to end in a fault of ours: one line and exit status 2."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunus.cli.main import run
from prunus.errors import FingerprintError, SuspectError
from prunus.fingerprint import file
from prunus.fingerprint.answers import Answers, ask
from prunus.fingerprint.commitment import check_commitment, commit, read_commitment
from prunus.fingerprint.endpoint import Endpoint
from prunus.fingerprint.file import NullModel, read_fingerprint, write_fingerprint
from prunus.fingerprint.make import make
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import owner_of_module
from prunus.fingerprint.statistics import fewest_at_best, null_rate, p_binomial
from prunus.fingerprint.suspects import Suspect
from prunus.fingerprint.verdict import judge
from tests.fingerprint.server import METADATA, Served, serving
from tests.fingerprint.toy import DOMAIN, SHAPE, answers, made_up, network, write

QUICK = Method("c", steps=1)


def test_copies_of_a_null_model_count_once() -> None:
    made, copies = made_up(100, ()), [NullModel(f"copy{i}", "ab" * 32, 5) for i in range(99)]
    found = judge(made, "s", Answers(answers(made, 60)), copies)
    assert (found.verdict, len(found.null), found.p_rank) == ("shown", 1, 0.5)
    measured = judge(made, "s", Answers(answers(made, 60)), [copies[0], NullModel("again", "ab" * 32, 40)])
    assert [model.matches for model in measured.null] == [40]  # not what is better for the owner
    unknown = [NullModel(f"http://a/v2/models/{i}", "", 5) for i in range(3)]
    assert len(judge(made, "s", Answers(answers(made, 60)), unknown).null) == 3


def test_the_owner_is_no_null_model() -> None:
    owner = owner_of_module(network(), SHAPE)
    with pytest.raises(SuspectError, match="copy: found the owner's own network"):
        make(owner, DOMAIN, QUICK, 20, [Suspect("copy", lambda x: x, digest=owner.digest)])


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6])
@pytest.mark.parametrize("classes", [2, 10])
def test_fewest_at_best(classes: int, alpha: float) -> None:
    n = fewest_at_best(classes, alpha)
    assert p_binomial(n, n, null_rate([0], n, classes)) <= alpha
    assert p_binomial(n - 1, n - 1, null_rate([0], n - 1, classes)) > alpha


@pytest.mark.parametrize(("n", "said"), [(6, "found 6, expected 7 at least"), (10**11, "found 100000000000, expected")])
def test_numbers_of_examples(n: int, said: str) -> None:
    with pytest.raises(FingerprintError, match=said):
        make(owner_of_module(network(), SHAPE), DOMAIN, QUICK, n)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((20, *SHAPE), np.nan, np.float32), "aren't finite"),
        (np.full((20, *SHAPE), 200.0, np.float32), "bounds"),
    ],
)
def test_images_of_other_values(images: Any, said: str) -> None:
    with pytest.raises(FingerprintError, match=f"images: .*{said}"):
        make(owner_of_module(network(), SHAPE), DOMAIN, QUICK, 20, images=images)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", [10**30] * 20), ("shape", [1, 0, 8]), ("shape", [1, -8, -8]), ("first", [99] * 20),
        ("first", [-1] * 20), ("classes", 10**30),
    ],
)  # fmt: skip
def test_forged_numbers(field: str, value: Any, tmp_path: Path) -> None:
    made, path = made_up(), tmp_path / "owner.fp"
    fields, blobs = {**file._fields(made), field: value}, made._blobs()
    digests = file._digests(fields, blobs)
    header = file._canonical({**fields, "digests": digests, "root": file._root(digests)})
    path.write_bytes(file._HEAD.pack(file.MAGIC, file.SCHEMA, len(header)) + header + blobs["examples"])
    with pytest.raises(FingerprintError, match=f"owner.fp: {field}"):
        read_fingerprint(path)


def test_deep_json(tmp_path: Path) -> None:
    deep, path = b"[" * 100_000, tmp_path / "owner.fp"
    path.write_bytes(file._HEAD.pack(file.MAGIC, file.SCHEMA, len(deep)) + deep)
    with pytest.raises(FingerprintError, match="header: not JSON"):
        read_fingerprint(path)
    path.write_bytes(deep)
    with pytest.raises(FingerprintError, match="not JSON"):
        read_commitment(path)


def test_seen_before_all_time() -> None:
    made = commit(made_up(), time=datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(FingerprintError, match="time: found"):
        check_commitment(made, made_up(), before=datetime.fromisoformat("0001-01-01T00:00:00+10:00"))


@pytest.mark.parametrize("url", ["http://a:b/v2/models/m", "http://[1/v2/models/m", "http:///v2/models/m"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SuspectError, match="expected http://HOST:PORT/v2/models/NAME"):
        Endpoint(url).suspect()


def test_a_name_that_is_not_ascii() -> None:
    with pytest.raises(SuspectError, match="no answer in 3 tries"):
        Endpoint("http://127.0.0.1:9/v2/models/ä", sleep=lambda seconds: None).suspect()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe", b"[" * 100_000,
        b'{"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [100000000000000000000000]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1e400], "data": [1]}]}',
    ],
)  # fmt: skip
def test_answers_that_are_garbage(body: bytes) -> None:
    with serving(Served(lambda x: x, body=body)) as served, pytest.raises(SuspectError):
        ask(Endpoint(served.url, sleep=lambda seconds: None).suspect(), made_up(50))


@pytest.mark.parametrize("change", [{"datatype": ["FP32"]}, {"shape": [float("inf"), 1, 8, 8]}])
def test_garbage_metadata(change: dict[str, Any]) -> None:
    ports = [{**METADATA["inputs"][0], **change}]
    with serving(Served(lambda x: x, {**METADATA, "inputs": ports})) as served, pytest.raises(SuspectError):
        Endpoint(served.url).suspect()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    write(network().eval(), tmp_path / "model.onnx")
    words = ["fingerprint", "make", "model.onnx", "--threads", "1", "--steps", "1", "--draws", "1"]
    assert run([*words, "-o", "."]) == run([*words, "-o", "none/owner.fp"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # nothing half-written
    assert run([*words, "-o", "owner.fp", "--null", "model.onnx"]) == 2
    assert "model.onnx: found the owner's own network" in capsys.readouterr().err

    write_fingerprint(Path("owner.fp"), made_up(50))
    assert run(["fingerprint", "commit", "owner.fp", "-o", "c.json"]) == 0
    verify = ["fingerprint", "verify", "owner.fp", "--suspect", "model.onnx", "--commitment", "c.json"]
    assert run([*verify, "--json", "v.json"]) == 1
    assert "not signed" in capsys.readouterr().out and json.loads(Path("v.json").read_text())["signed_by"] == ""
    served = Served(lambda x: np.zeros(len(x), int))
    with serving(served):
        assert run([*verify, "--suspect", served.url, "--suspect", "none.onnx"]) == 2
    assert served.requests == 0  # nobody is asked before all can be
