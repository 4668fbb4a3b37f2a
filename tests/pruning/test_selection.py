"""Rules by name and by pattern."""

import pytest

from prunus.errors import RuleError
from prunus.pruning.selection import matches, select

LAYERS = [("conv1", "w.1"), ("conv2", "w.2"), ("", "fc.weight")]


@pytest.mark.parametrize(
    ("rules", "hits"),
    [
        ((), [False, False, False]),
        (("conv1",), [True, False, False]),
        (("w.2", "fc.weight"), [False, True, True]),
        (("re:^conv",), [True, True, False]),
        (("re:1$", "re:^conv1"), [True, False, False]),
        (("re:weight",), [False, False, True]),
        ("conv2", [False, True, False]),
    ],
)
def test_select(rules: tuple[str, ...], hits: list[bool]) -> None:
    assert select(rules, LAYERS) == hits


def test_an_exact_name_is_no_pattern() -> None:
    assert not matches("conv", ["conv1"]) and matches("re:conv", ["conv1"])


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("conv_1", ["conv_1", "did you mean conv1"]),
        ("re:^stem", ["re:^stem", "matches no layer"]),
        ("re:(", ["re:(", "valid pattern"]),
        (3, ["3", "expected a name"]),
    ],
)
def test_rules_that_cannot_be(rule: str, facts: list[str]) -> None:
    with pytest.raises(RuleError) as caught:
        select((rule,), LAYERS)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_without_layers_every_rule_is_an_error() -> None:
    with pytest.raises(RuleError, match="none"):
        select(("a",), [])
