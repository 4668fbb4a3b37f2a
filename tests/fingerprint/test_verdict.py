"""Verdicts at their edges."""

import subprocess
import sys

import pytest

from prunus.errors import FingerprintError
from prunus.fingerprint.answers import Answers
from prunus.fingerprint.file import NullModel
from prunus.fingerprint.verdict import Evidence, judge
from tests.fingerprint.toy import answers, made_up


def found(matches: int, n: int = 100, null: tuple[int, ...] = (), **more: int | float) -> Evidence:
    made = made_up(n, null)
    return judge(made, "suspect", Answers(answers(made, matches)), **more)  # type: ignore[arg-type]


def test_the_needed_number_is_the_edge() -> None:
    edge = found(0, null=(5, 9)).needed
    assert found(edge, null=(5, 9)).verdict == "shown"
    below = found(edge - 1, null=(5, 9))
    assert (below.verdict, below.shown) == ("not shown", False) and below.p > 1e-3


def test_without_null_models_the_rate_is_assumed() -> None:
    evidence = found(66)
    assert (evidence.rate, evidence.measured, evidence.p_rank) == (0.5, False, 1.0)
    assert evidence.needed == 66 and evidence.shown and not found(65).shown


def test_strongly_shown_takes_99_null_models() -> None:
    assert found(60, null=(5,) * 98).verdict == "shown"
    assert found(60, null=(5,) * 99).verdict == "strongly shown"


def test_more_null_models_and_suspects_raise_the_bar() -> None:
    made = made_up(100, (5,))
    labels = Answers(answers(made, 24))
    assert judge(made, "s", labels).shown
    assert not judge(made, "s", labels, [NullModel("hard", "", 40)]).shown
    one, many = judge(made, "s", labels), judge(made, "s", labels, suspects=50)
    assert many.needed > one.needed and many.p == pytest.approx(50 * one.p)


def test_never_fewer_than_a_null_model() -> None:
    """Whatever alpha would allow."""
    assert found(49, null=(50,), alpha=0.99).p < 0.99
    assert not found(49, null=(50,), alpha=0.99).shown and found(51, null=(50,), alpha=0.99).shown


@pytest.mark.parametrize(("n", "null", "said"), [(9, (), "found 9, expected 10"), (20, (20,), "that match less")])
def test_too_few_examples_for_any_verdict(n: int, null: tuple[int, ...], said: str) -> None:
    with pytest.raises(FingerprintError, match=said):
        found(n, n, null)


def test_alpha_out_of_range() -> None:
    for more in ({"alpha": 0.0}, {"alpha": 1.0}, {"suspects": 0}):
        with pytest.raises(FingerprintError, match="expected alpha"):
            found(50, **more)


def test_answers_of_another_number() -> None:
    made = made_up(100)
    with pytest.raises(FingerprintError, match="found 20 answers, expected 100"):
        judge(made, "s", Answers(made_up(20).targets))


def test_verifying_imports_no_torch() -> None:
    names = ("answers", "commitment", "endpoint", "file", "suspects", "verdict")
    lines = [f"import prunus.fingerprint.{name}" for name in names]
    code = "; ".join([*lines, "import sys", "sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
