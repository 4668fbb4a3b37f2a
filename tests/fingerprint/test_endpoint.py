"""A suspect behind HTTP: metadata, answers, failures, and going on after them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.errors import FingerprintError, SuspectError
from prunus.fingerprint.answers import ask
from prunus.fingerprint.endpoint import Endpoint
from tests.fingerprint.server import METADATA, Served, serving
from tests.fingerprint.toy import made_up


def scores(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of each sample by its first pixel."""
    return np.eye(10, dtype=np.float32)[(x[:, 0, 0, 0] * 255).round().astype(int) % 10]


def quick(url: str) -> Endpoint:
    return Endpoint(url, sleep=lambda seconds: None)


def expected() -> np.ndarray[Any, Any]:
    return made_up(50).examples[:, 0, 0, 0].astype(int) % 10


def test_answers() -> None:
    with serving(Served(scores)) as served:
        suspect = quick(served.url).suspect(batch=7)
        assert (suspect.shape, suspect.classes, suspect.batch) == ((1, 8, 8), 10, None)
        found = ask(suspect, made_up(50))
    np.testing.assert_array_equal(found.labels, expected())
    assert (found.failures, served.samples) == (0, 50)


def test_labels_and_fixed_batch() -> None:
    port = {"name": "x", "datatype": "FP32", "shape": [4, 1, 8, 8]}
    with serving(Served(lambda x: scores(x).argmax(1), {**METADATA, "inputs": [port]})) as served:
        suspect = quick(served.url).suspect()
        assert suspect.batch == 4
        np.testing.assert_array_equal(ask(suspect, made_up(50)).labels, expected())
        assert served.samples % 4 == 0


@pytest.mark.parametrize("status", [503, 429, 0])
def test_single_failures_are_counted(status: int) -> None:
    with serving(Served(scores, fails=lambda request: request % 3 == 1, status=status)) as served:
        endpoint = quick(served.url)
        found = ask(endpoint.suspect(), made_up(50), failures=lambda: endpoint.failures)
    np.testing.assert_array_equal(found.labels, expected())
    assert found.failures == served.requests - 5 == 2  # five are needed: ten examples at a time


def test_goes_on_after_a_failure(tmp_path: Path) -> None:
    keep = tmp_path / "answers"
    with serving(Served(scores, fails=lambda request: request >= 3)) as served:
        endpoint = quick(served.url)
        with pytest.raises(SuspectError, match=r"3 failures: status 503; 20 of 50 examples answered, kept in .*again"):
            ask(endpoint.suspect(), made_up(50), keep, lambda: endpoint.failures)
        served.fails, before = lambda request: False, served.samples
        endpoint = quick(served.url)
        found = ask(endpoint.suspect(), made_up(50), keep, lambda: endpoint.failures)
        assert served.samples - before == 30  # what was answered isn't asked again
    np.testing.assert_array_equal(found.labels, expected())
    assert found.failures == 3 and not keep.exists()


def test_kept_answers_of_others(tmp_path: Path) -> None:
    keep = tmp_path / "answers"
    with serving(Served(scores, fails=lambda request: request >= 3)) as served:
        suspect = quick(served.url).suspect()
        with pytest.raises(SuspectError):
            ask(suspect, made_up(50), keep)
        with pytest.raises(FingerprintError, match="fingerprint: found"):
            ask(suspect, made_up(51), keep)
        with pytest.raises(FingerprintError, match="suspect: found"):
            ask(replace(suspect, name="other"), made_up(50), keep)
        keep.write_text("{")
        with pytest.raises(FingerprintError, match="no answers that can be read"):
            ask(suspect, made_up(50), keep)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 4, 4]}]}, r"inputs of \[1, 4, 4\], expected"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 7]}]}, "tells 7 classes apart, expected 10"),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 1]}]}, r"takes BYTES\[-1, 1\], expected"),
        ({"inputs": []}, "no single input"),
        ({"inputs": [{"name": "x"}]}, "without name, datatype and shape"),
    ],
)
def test_other_models(change: dict[str, Any], said: str) -> None:
    with serving(Served(scores, {**METADATA, **change})) as served, pytest.raises(SuspectError, match=said):
        ask(quick(served.url).suspect(), made_up(50))


@pytest.mark.parametrize("body", [b"[]", b'{"outputs": []}', b'{"outputs": [{"name": "y", "datatype": "FP32"}]}'])
def test_answers_that_are_none(body: bytes) -> None:
    with serving(Served(scores, body=body)) as served, pytest.raises(SuspectError, match="answer"):
        ask(quick(served.url).suspect(), made_up(50))


def test_garbage_is_a_failure() -> None:
    with serving(Served(scores, body=b"{")) as served, pytest.raises(SuspectError, match="no answer in 3 tries"):
        ask(quick(served.url).suspect(), made_up(50))


def test_refused_at_once() -> None:
    with serving(Served(scores, fails=lambda request: True, status=400)) as served:
        with pytest.raises(SuspectError, match="refused with status 400: broken"):
            ask(quick(served.url).suspect(), made_up(50))
        assert served.requests == 1


def test_wrong_numbers_of_answers() -> None:
    with (
        serving(Served(lambda x: scores(x)[:-1])) as served,
        pytest.raises(SuspectError, match=r"answers .*\[18, 10\]"),
    ):
        ask(quick(served.url).suspect(), made_up(50))


def test_addresses() -> None:
    for url in ("ftp://a/v2/models/m", "http://127.0.0.1:1/models/m"):
        with pytest.raises(SuspectError, match="expected http://HOST:PORT/v2/models/NAME"):
            Endpoint(url).suspect()
    with pytest.raises(SuspectError, match="no answer in 3 tries, 3 failures"):
        quick("http://127.0.0.1:9/v2/models/m").suspect()
