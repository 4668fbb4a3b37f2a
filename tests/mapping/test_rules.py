"""Each rule by itself, and what they make of a network."""

from dataclasses import replace

import pytest

from prunus.mapping.network import Site
from prunus.mapping.rules import (
    Terms,
    rule_0_stays,
    rule_1_depthwise,
    rule_2_three_by_three,
    rule_3_blocks,
    rule_4_smallest,
    rule_5_break_even,
    rule_based,
)
from prunus.mapping.space import Option
from prunus.sparsity.scheme import Scheme, parse
from tests.mapping.fakes import formula, site_of, sources


def test_ends_and_depthwise_stay_dense() -> None:
    first, depthwise, *_, last = sources().network.sites
    assert "first" in rule_0_stays(first, Terms()) and "last" in rule_0_stays(last, Terms())
    assert rule_0_stays(first, Terms(ends=True)) == rule_0_stays(last, Terms(ends=True)) == ""
    assert "depthwise" in rule_1_depthwise(depthwise) and rule_1_depthwise(first) == ""


def test_three_by_three_go_by_difficulty() -> None:
    about = sources()
    site = site_of(about, lambda s: s.kernel == (3, 3) and not s.first and not s.refusal)
    assert rule_2_three_by_three(site, Terms("hard"), 0.8) == parse("pattern:4")
    assert rule_2_three_by_three(site, Terms("hard"), 0.5) is None  # a pattern takes five of nine away
    assert rule_2_three_by_three(site, Terms("easy"), 0.8) is None
    other = site_of(about, lambda s: s.kernel == (1, 1))
    assert rule_2_three_by_three(other, Terms("hard"), 0.8) is None


def test_convolutions_take_punched_and_others_blocks() -> None:
    about = sources()
    punched = [str(scheme) for scheme in rule_3_blocks(site_of(about, lambda s: s.kernel == (5, 5)), "bf16")]
    assert punched[0] == "punched:4x2" and all(scheme.startswith("punched") for scheme in punched)
    assert {scheme.name for scheme in rule_3_blocks(about.network.sites[-1], "fp32")} == {"bcr", "block-column"}


def test_the_smallest_block_that_keeps_up_with_filters() -> None:
    options = [Option("punched:4x1", 0.9, 1.3), Option("punched:8x4", 0.9, 1.1), Option("punched:16x8", 0.9, 1.0)]
    chosen, why = rule_4_smallest(options, 1.0, 0.15)
    assert chosen.scheme == "punched:8x4" and "1.1 ms for 1 of whole filters" in why and "punched:16x8" in why
    assert rule_4_smallest(options, 1.0, 0.5)[0].scheme == "punched:4x1"
    chosen, why = rule_4_smallest(options, 0.5, 0.15)
    assert chosen.scheme == "punched:16x8" and "fastest block" in why


def test_what_does_not_pay_is_not_pruned() -> None:
    dense = Option(None, 0.0, 1.0)
    assert rule_5_break_even(Option("filter", 0.5, 0.5), dense) == ""
    assert "takes 0.99 ms, dense 1" in rule_5_break_even(Option("filter", 0.5, 0.99), dense)

    def slow(site: Site, scheme: Scheme | None, sparsity: float) -> float:
        return formula(site, None, 0.0) * (1.0 if scheme is None else 1.2)

    ruled = rule_based(sources(measure=slow), Terms())
    assert all(len(layer.options) == 1 for layer in ruled.space.layers)
    assert "rule 5" in ruled.reasons[ruled.space.layers[2].name, 0.0]


def test_the_smallest_block_is_one_that_pays() -> None:
    """Within (1 + beta) of whole filters, and no faster than dense: then a larger one is taken."""

    def close(site: Site, scheme: Scheme | None, sparsity: float) -> float:
        pays = scheme is None or str(scheme) in ("filter", "punched:16x8")
        return formula(site, None, 0.0) * (1.0 if scheme is None else 0.95 if pays else 0.99)

    ruled = rule_based(sources(measure=close), replace(Terms(), sparsities=(0.5,)))
    inner = ruled.space.layers[3]
    assert [option.scheme for option in inner.options] == [None, "punched:16x8"]
    assert "rule 4: smallest block" in ruled.reasons[inner.name, 0.5]


@pytest.mark.parametrize(("difficulty", "scheme"), [("easy", "punched"), ("hard", "pattern")])
def test_no_option_is_slower_than_dense_or_without_reason(difficulty: str, scheme: str) -> None:
    ruled = rule_based(sources(), Terms(difficulty))
    for layer in ruled.space.layers:
        assert layer.options[0].scheme is None and (layer.name, 0.0) in ruled.reasons
        for option in layer.options[1:]:
            assert option.ms < layer.dense_ms and ruled.reasons[layer.name, option.sparsity]
    inner = ruled.space.layers[3]
    assert inner.shape[2:] == (3, 3)
    assert all(str(option.scheme).startswith(scheme) for option in inner.options if option.sparsity > 0.55)
    assert [len(layer.options) > 1 for layer in ruled.space.layers] == [False, False, True, True, True, False]


def test_reasons_say_which_data_set_it_is() -> None:
    ruled = rule_based(sources(), replace(Terms("hard"), sparsities=(0.5, 0.8)))
    inner = ruled.space.layers[3].name
    assert ruled.reasons[inner, 0.5].startswith("rule 2: punched, patterns have 5/9 zeros at least")
    assert ruled.reasons[inner, 0.8].startswith("rule 2: pattern, a hard data set")


def test_layers_may_all_be_pruned() -> None:
    ruled = rule_based(sources(), replace(Terms(), ends=True, sparsities=(0.8,)))
    assert [len(layer.options) for layer in ruled.space.layers] == [2, 1, 2, 2, 2, 2]
