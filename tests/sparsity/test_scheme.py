"""Text form of schemes: round trip, and errors that say what is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.errors import SchemeError
from prunus.sparsity.scheme import FORMS, Scheme, parse
from prunus.sparsity.schemes import SCHEMES

TWO = [name for name, form in FORMS.items() if "x" in form]


def test_every_form_has_a_family() -> None:
    assert list(FORMS) == list(SCHEMES)


@pytest.mark.parametrize("text", FORMS.values())
def test_forms_round_trip(text: str) -> None:
    assert str(parse(text)) == text


@given(st.sampled_from(TWO), st.integers(1, 5000), st.integers(1, 5000))
def test_blocks_round_trip(name: str, rows: int, cols: int) -> None:
    scheme = Scheme(name, (rows, cols))
    assert parse(str(scheme)) == scheme
    assert parse(f"{name}:{rows}x{cols}").block == (rows, cols)


@given(st.integers(1, 30), st.integers(1, 30))
def test_n_m_round_trips(n: int, more: int) -> None:
    scheme = parse(f"{n}:{n + more}")
    assert (scheme.name, scheme.block, str(scheme)) == ("n:m", (n, n + more), f"{n}:{n + more}")


def test_parse_leaves_a_scheme() -> None:
    assert parse(Scheme("filter")) == Scheme("filter")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("brc:8x64", ["brc:8x64", "did you mean bcr:8x64"]),
        ("block_column:8x64", ["did you mean block-column:8x64"]),
        ("Unstructured", ["did you mean unstructured"]),
        ("zzz", ["zzz", "unstructured", "2:4"]),
        ("n:m", ["n:m", "2:4"]),
        ("", ["unstructured"]),
        ("bcr", ["bcr", "2 positive numbers", "bcr:8x64"]),
        ("bcr:8", ["bcr", "2 positive numbers"]),
        ("bcr:8x0", ["bcr", "2 positive numbers"]),
        ("bcr:8xq", ["8xq", "bcr:8x64"]),
        ("filter:3", ["filter", "no numbers"]),
        ("4:4", ["4:4", "2:4"]),
        ("0:4", ["positive"]),
        ("pattern:9", ["pattern:9", "pattern:4"]),
        (7, ["7", "bcr:8x64"]),
    ],
)
def test_what_is_no_scheme_is_refused(text: str, facts: list[str]) -> None:
    with pytest.raises(SchemeError) as caught:
        parse(text)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_name_of_a_scheme_is_refused() -> None:
    with pytest.raises(SchemeError, match="blob"):
        Scheme("blob")
