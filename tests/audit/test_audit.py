"""The audit as a whole: curves that rise, a planted weakness found, twins that answer only, partial reports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunus.audit.audit import AuditPlan, Evidence, audit, without_gradients
from prunus.audit.ball import Ball
from prunus.audit.data import Labelled, split
from prunus.audit.objective import Objective
from prunus.audit.page import page
from prunus.audit.report import Report, rate
from prunus.audit.tasks import Source
from prunus.audit.victims import Victim, of_module
from prunus.errors import AuditError
from tests.audit.toy import Backdoored, images, trained

PLAN = AuditPlan(Ball(0.2), gate=0.2, shots=2, steps=10, attacks=("pgd", "sga"), factors=(0.25, 1.0, 2.0))
DATA = Labelled(images(120, 2))


@pytest.fixture(scope="module")
def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
    plain = trained()
    return plain, Backdoored(plain, 60.0)


def test_curves_rise_and_the_gate_decides(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    victims = [of_module(networks[0], (1, 8, 8), "a"), of_module(trained(1), (1, 8, 8), "b")]
    kept: list[tuple[Report, Evidence]] = []
    report = audit(victims, DATA, PLAN, lambda r, e: kept.append((r, e)))
    assert [len(r.models) for r, _ in kept] == [1, 2]
    for model in report.models:
        shares = [point.success.share for point in model.curve]
        assert shares == sorted(shares) and shares[0] < 0.2 < 0.45 < shares[-1], shares
        assert [point.eps for point in model.curve] == pytest.approx([0.05, 0.2, 0.4])
        assert model.accuracy.share > 0.95 and model.at_eps.success.low < model.at_eps.success.share
        assert model.passes is False and model.how == "gradients" and model.gradients > 0
        counted = sum(row.success.n for row in model.classes)
        assert counted == model.at_eps.success.n
    assert not report.passes
    assert len(report.transfer) == 2 and report.transfer[0][0] > report.transfer[1][0] * 0.5
    assert report.models[0].against_first is None and report.models[1].against_first is not None
    text = page(report, kept[-1][1])
    assert "<svg" in text and text.count("data:image/png;base64,") >= 4 and "Over the gate of 20%" in text
    assert "http" not in text  # opens offline
    assert replace(report, gate=None, models=tuple(replace(m, passes=None) for m in report.models)).passes


def test_finds_a_planted_weakness(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    plain, weak = (of_module(network, (1, 8, 8), name) for network, name in zip(networks, "ab", strict=True))
    assert (plain.classify(DATA.source.x) == weak.classify(DATA.source.x)).float().mean() > 0.9
    plan = replace(PLAN, ball=Ball(0.08), gate=0.3, objective=Objective(target=0))
    report = audit([plain, weak], DATA, plan)
    first, second = report.models
    assert first.passes and first.at_eps.success.share < 0.15
    assert second.passes is False and second.at_eps.success.share > 0.6
    assert second.against_first is not None and second.against_first.low > 0.3
    assert {row.becomes for row in second.classes if row.success.share} == {"0"}


def test_audit_of_a_model_against_itself_differs_by_nothing(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    victims = [of_module(networks[0], (1, 8, 8), name) for name in "ab"]
    second = audit(victims, DATA, replace(PLAN, factors=(1.0,))).models[1].against_first
    assert second is not None and second.low <= 0 <= second.high


def test_a_twin_that_answers_only_is_judged_by_all(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    open_, closed = (of_module(networks[0], (1, 8, 8), name) for name in "ab")
    blind = without_gradients(closed)
    report = audit([open_, blind], DATA, replace(PLAN, attacks=("pgd",), queries=4000))
    second = report.models[1]
    assert second.how == "queries" and second.gradients == 0
    assert 0.5 * 4000 <= second.images <= 4000 + 10 * len(DATA.source.y)
    assert second.at_eps.success.share >= report.models[0].at_eps.success.share
    alone = audit([blind], DATA, replace(PLAN, attacks=("pgd",), queries=4000)).models[0]
    assert alone.at_eps.success.share > 0.25


def test_what_is_done_is_kept_where_a_model_fails(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            zero = (x * 0).flatten(1).sum(1)
            return torch.stack([x.flatten(1).sum(1) + zero.sqrt(), zero, zero, zero], 1)

    kept: list[Report] = []
    victims = [of_module(networks[0], (1, 8, 8), "a"), of_module(Broken(), (1, 8, 8), "b")]
    with pytest.raises(AuditError, match="b: its gradient has values that aren't finite"):
        audit(victims, DATA, PLAN, lambda r, e: kept.append(r))
    assert [len(r.models) for r in kept] == [1, 1]
    assert "b: its gradient" in kept[-1].failure and not kept[-1].passes


def test_a_model_that_fails_on_perturbations_of_another_leaves_a_report(
    networks: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    class Delicate(torch.nn.Module):
        """Answers nothing sensible where many pixels are cut."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            good: torch.Tensor = networks[0](x)
            return good / (float(limit) > (x == 0).flatten(1).float().mean(1, keepdim=True)).float()

    limit = 1.1
    plan = replace(PLAN, attacks=("pgd",), factors=(1.0,))
    kept: list[Report] = []
    second = of_module(Delicate(), (1, 8, 8), "b")

    def keep(report: Report, _: Evidence) -> None:
        nonlocal limit
        kept.append(report)
        limit = 0.0  # from now on

    with pytest.raises(AuditError, match="b: it answers"):
        audit([of_module(networks[0], (1, 8, 8), "a"), second], DATA, plan, keep)
    assert [[m.name for m in r.models] for r in kept] == [["a"], ["a"]] and "b: it answers" in kept[-1].failure


def test_a_target_that_all_images_are_of_says_nothing(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    own = DATA.source.y == 1
    data = Labelled(Source("ones", DATA.source.x[own], DATA.source.y[own]))
    with pytest.raises(AuditError, match="no image of a class other than 1"):
        audit([of_module(networks[0], (1, 8, 8))], data, replace(PLAN, objective=Objective(target=1)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shots": 15}, r"class \d has 30 images, expected 31 at least: 15 shots to fit"),
        ({"fit": 60}, "120 images, expected 121 at least"),
        ({"attacks": ("luck",)}, "attack 'luck': expected some of learned, pgd"),
        ({"attacks": ()}, "no attacks"),
        ({"objective": Objective(target=4)}, "target 4: expected a class, 0 to 3"),
    ],
)
def test_refused(change: dict[str, object], said: str, networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    with pytest.raises(AuditError, match=said):
        audit([of_module(networks[0], (1, 8, 8))], DATA, replace(PLAN, **change))  # type: ignore[arg-type]


def test_two_of_one_name_and_useless_ones_are_refused(networks: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    victim = of_module(networks[0], (1, 8, 8))
    with pytest.raises(AuditError, match="model: given twice"):
        audit([victim, victim], DATA, PLAN)
    wrong = Victim("wrong", lambda x: torch.eye(4)[(x.flatten(1).sum(1) * 0).long() + 3], (1, 8, 8), 4, True)
    data = Labelled(replace(DATA.source, y=DATA.source.y % 3))
    with pytest.raises(AuditError, match="wrong: answers no image rightly"):
        audit([wrong], data, PLAN)


def test_splits_are_disjoint_and_of_all_classes() -> None:
    parts = split(DATA.source, 3)
    rows = [{tuple(image.flatten().tolist()) for image in part.x} for part in (parts.fit, parts.choose, parts.judge)]
    assert [len(r) for r in rows] == [12, 12, 96] and len(set.union(*rows)) == 120
    assert parts.fit.y.bincount().tolist() == [3, 3, 3, 3]
    assert len(split(DATA.source, 1, fit=7).fit.y) == 7


def test_rates_have_intervals() -> None:
    half = rate(50, 100)
    assert half.share == 0.5 and (round(half.low, 3), round(half.high, 3)) == (0.404, 0.596)
    assert rate(0, 10).low == 0 and rate(10, 10).high == 1 and rate(0, 0).high == 1


def test_a_softmax_at_the_end_leaves_gradients(
    tmp_path: Path, networks: tuple[torch.nn.Module, torch.nn.Module]
) -> None:
    sure = torch.nn.Sequential(networks[0], torch.nn.Softmax(1))
    a, b = of_module(networks[0], (1, 8, 8), "a"), of_module(sure, (1, 8, 8), "b")
    x = DATA.source.x[:8]
    torch.testing.assert_close(b.logits(x), a.logits(x).log_softmax(1), atol=1e-3, rtol=1e-3)
