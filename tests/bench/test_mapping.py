"""The rows of bench.mapping, and its random plans: the same for the same seed, and such that layers can have them."""

import pytest

from bench import mapping
from prunus.sparsity.check import fits
from prunus.sparsity.scheme import parse
from tests.mapping.fakes import sources


def test_rows() -> None:
    keys = list(mapping.rows())
    assert len([key for key in keys if key.startswith("predict resnet18")]) == 20
    assert {"promise resnet18 rules", "promise resnet18 exact", "even mobilenetv2", "even efficientnet-lite0"} <= set(
        keys
    )


def test_random_plans() -> None:
    about = sources()
    chosen = []
    for seed in (0, 0, 1):
        plan = mapping.random_plan(about, seed)
        chosen.append([(row.option.scheme, row.option.sparsity) for row in plan.rows])
        assert [row.option.scheme is None for row in plan.rows] == [bool(s.refusal) for s in about.network.sites]
        assert all(fits(row.layer.shape, parse(row.option.scheme)) is None for row in plan.rows if row.option.scheme)
        reports = {node.name: node for node in mapping.pruned(about, plan).graph.node}
        assert len(reports) == len(about.network.model.graph.node)
    assert chosen[0] == chosen[1] != chosen[2]
    assert plan.predicted_ms == pytest.approx(0.05 + sum(row.option.ms for row in plan.rows))
