"""The paper's scores on small numbers."""

import pytest

from prunus.fingerprint.scores import Scores, scores


def test_scores() -> None:
    found = scores([1.0, 0.5], [0.5, 0.1])
    assert found == Scores(0.75, pytest.approx(0.3), pytest.approx(0.45), 0.5, 0.5, 0.25, 0.875)
