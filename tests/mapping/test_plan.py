"""From budgets to plans: what is promised, in which words, and the same bytes each time."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prunus.errors import BudgetError
from prunus.mapping.plan import METHODS, Budget, make_plan, parse_budget, plan_text
from prunus.mapping.rules import Terms
from prunus.pruning.one_shot import prune_by_rules
from prunus.sparsity.check import fits
from prunus.sparsity.scheme import parse
from prunus.training.plan import read_plan, with_plan
from tests.mapping.fakes import network, sources
from tests.runtime.networks import Net


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (("8ms", None, None), Budget("latency", 8.0)),
        (("8", None, None), Budget("latency", 8.0)),
        (("0.5 s", None, None), Budget("latency", 500.0)),
        (("250us", None, None), Budget("latency", 0.25)),
        ((None, "5", None), Budget("speedup", 5.0)),
        ((None, "2.5x", None), Budget("speedup", 2.5)),
        ((None, None, 0.9), Budget("sparsity", 0.9)),
    ],
)
def test_budgets(given: tuple[str | None, str | None, float | None], budget: Budget) -> None:
    assert parse_budget(*given) == budget


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, None), "found none, expected one of --target-latency"),
        (("8ms", "5", None), "--target-latency and --speedup"),
        (("8min", None, None), "'8min': expected a time, as 8ms"),
        (("0", None, None), "expected a time"),
        ((None, "0.5", None), "at least 1"),
        ((None, "fast", None), "as 5 or 5x"),
        ((None, None, 90.0), "did you mean 0.9"),
        ((None, None, 1.0), "below 1"),
    ],
)
def test_bad_budgets(given: tuple[str | None, str | None, float | None], said: str) -> None:
    with pytest.raises(BudgetError, match=said.replace("(", r"\(")):
        parse_budget(*given)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [Budget("speedup", 2.5), Budget("latency", 0.8), Budget("sparsity", 0.8)])
def test_a_plan_keeps_its_budget_and_gives_reasons(method: str, budget: Budget) -> None:
    plan = make_plan(sources(), budget, method, Terms())
    if budget.kind == "sparsity":
        assert plan.sparsity >= 0.8 - 1e-6
    else:
        limit = 0.8 if budget.kind == "latency" else plan.dense_ms / 2.5
        assert plan.predicted_ms <= limit * (1 + 1e-6)
    for row in plan.rows:
        assert row.reason and row.option.ms <= row.layer.dense_ms
        assert row.option.scheme is None or fits(row.layer.shape, parse(row.option.scheme)) is None


def test_exact_loses_no_more_than_rules() -> None:
    found = {
        method: sum(row.option.loss or 0.0 for row in make_plan(sources(), Budget("speedup", 3), method, Terms()).rows)
        for method in METHODS
    }
    assert found["exact"] <= found["rules"] + 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_the_same_plan_is_the_same_text(method: str) -> None:
    one, two = (plan_text(make_plan(sources(), Budget("speedup", 2), method, Terms())) for _ in range(2))
    assert one == two


def test_plan_yaml_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = make_plan(sources(), Budget("speedup", 2.5), "rules", Terms())
    path = tmp_path / "plan.yaml"
    path.write_text(plan_text(plan))
    read = read_plan(path)
    assert (read.machine, read.threads, read.precision, read.method) == ("a machine", 1, "fp32", "rules")
    assert read.predicted_ms == pytest.approx(plan.predicted_ms, abs=1e-4)
    for rule, row in zip(read.layers, plan.rows, strict=True):
        assert (rule.match, rule.weight, rule.scheme) == (row.layer.name, row.layer.weight, row.option.scheme)
        assert rule.skip == (row.option.scheme is None) and (rule.sparsity or 0.0) == row.option.sparsity
        assert f"# {row.reason}\n  - match: {rule.match}\n" in path.read_text()
    assert YAML(typ="safe").load(path.read_text())["budget"] == "2.5 x"


def test_a_plan_is_what_is_pruned(tmp_path: Path) -> None:
    plan = make_plan(sources(), Budget("speedup", 2.5), "rules", Terms())
    path = tmp_path / "plan.yaml"
    path.write_text(plan_text(plan))
    result = prune_by_rules(network(), read_plan(path).choices())
    by_weight = {report.weight: report for report in result.layers}
    pruned = [row for row in plan.rows if row.option.scheme]
    assert pruned
    for row in plan.rows:
        report = by_weight[row.layer.weight]
        assert (str(report.scheme) if report.scheme else None) == row.option.scheme
        if row.option.scheme:
            assert report.sparsity == pytest.approx(row.option.sparsity, abs=0.02)


def test_nodes_that_share_weights_are_pruned_alike(tmp_path: Path) -> None:
    net = Net({"x": (1, 16, 6, 6)})
    weight = net.weight(16, 16, 3, 3)
    x = net.add("Conv", "x", weight, pads=[1] * 4)
    model = net.model(net.add("Conv", net.add("Relu", x), weight, pads=[1] * 4))
    path = tmp_path / "plan.yaml"
    path.write_text(plan_text(make_plan(sources(model), Budget("speedup", 2), "rules", Terms(ends=True))))
    pruned = prune_by_rules(model, read_plan(path).choices())
    (report,) = pruned.layers
    assert report.note.startswith("shared with") and report.weight == weight
    assert len(pruned.model.graph.initializer) == len(model.graph.initializer)  # no copy for a reader left dense
    recipe = {"model": {"build": "model.onnx"}, "data": {"train": "a.npz", "validation": "b.npz"}}
    assert [rule.match for rule in with_plan(recipe, read_plan(path)).layers] == [weight]


def test_out_of_reach() -> None:
    with pytest.raises(BudgetError, match=r"best reachable is .* ms, .*bounded by .* outside of layers"):
        make_plan(sources(), Budget("latency", 0.01), "rules", Terms())
    with pytest.raises(BudgetError, match=r"outside of layers$"):  # nothing else to try
        make_plan(sources(), Budget("latency", 0.01), "rules", Terms(ends=True))
    with pytest.raises(BudgetError, match=r"sparsity 0\.99.*--ends prunes them too"):
        make_plan(sources(), Budget("sparsity", 0.99), "exact", Terms())
