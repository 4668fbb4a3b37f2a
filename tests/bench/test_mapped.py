"""The comparison of mapped networks with those of one scheme, and rule 2's table, from rows as they are written."""

import pytest

pytest.importorskip("matplotlib")

from bench import mapped, rule_two, training


def rows(network: str) -> dict[str, dict[str, float]]:
    """Of two seeds: dense 1 ms at 93 %; bcr 0.5 ms, pattern 0.6 ms, mapped 0.3 ms at 92.5 %."""
    found: dict[str, dict[str, float]] = {}
    for seed in (0, 1):
        off = 0.001 * (2 * seed - 1)
        for how, ms, accuracy in (
            (("bcr:8x64", 0.9), 0.5, 0.925), (("pattern:4", 0.8), 0.6, 0.925), (("search", 3.0), 0.3, 0.925),
            (("rules", 3.0), 0.32, 0.925), (("rules", 4.0), 0.1, 0.9),
        ):  # fmt: skip
            case = mapped.Case(network, *how, seed)
            found[case.key] = {"accuracy": accuracy + off}
            found[f"time {case.key}"] = {"ms": ms}
        found[f"{network} dense seed {seed}"] = {"accuracy": 0.93 + off}
        found[f"time {network} dense seed {seed}"] = {"ms": 1.0}
    return found


def test_ratios_at_equal_accuracy() -> None:
    lines = {(line.way, line.speedup): line for line in mapped.lines(rows("vgg"))}
    assert len(lines) == 3
    line = lines["search", 3.0]
    assert (line.best, line.seeds) == ("bcr:8x64", 2)
    assert (line.over_best, line.over_pattern, line.over_dense, line.drop) == pytest.approx((5 / 3, 2, 1 / 0.3, 0.5))
    found = {each.what: each for each in mapped.verdicts(rows("vgg"))}
    assert found["vgg: mapped over the best single scheme"].verdict == "pass"
    assert found["vgg: mapped over pattern-only"].value == pytest.approx(
        2
    )  # the network that lost 3 points is left out
    assert found["vgg: mapped over pattern-only, the paper's"].verdict == "short"
    assert found["vgg: rules' time over search's"].value == pytest.approx(0.1 * 3.2**0.92 / 0.3)
    assert found["vgg: rules' time over search's"].verdict == "pass"
    assert found["resnet20: mapped over pattern-only"].verdict == "not measured"
    promised = {
        "plan vgg search 3": {"ms": 0.28},
        "plan vgg rules 3": {"ms": 0.33},
        "plan vgg rules 4": {"failure": "no"},
    }
    (worst,) = [v for v in mapped.verdicts(rows("vgg") | promised) if v.what.startswith("vgg: measured beside")]
    assert worst.value == pytest.approx(0.3 / 0.28 - 1) and worst.verdict == "pass"


def test_rows_of_training_count() -> None:
    """One scheme's networks have the names that bench.training gives them, and cases are named once."""
    keys = [case.key for case in mapped.cases()]
    assert len(set(keys)) == len(keys)
    assert training.Case("vgg", "bcr:8x64", 0.9, "gradual", 2).key in keys
    assert [case.seed for case in mapped.cases()] == sorted(case.seed for case in mapped.cases())


def test_rule_two_is_decided_by_seeds() -> None:
    def row(key: str, drop: float) -> dict[str, object]:
        return {"key": key, "drop": drop}

    easy, hard = [], []
    for seed, more in enumerate((0.0, 0.1, 0.05)):
        easy += [
            row(rule_two.Case("pattern:4", 0.8, seed).key, 0.1),
            row(rule_two.Case("punched:8x4", 0.8, seed).key, more),
        ]
        for scheme, drop in (("pattern:4", 0.4), ("punched:8x4", 1.0 + more)):
            hard.append(row(training.Case("vgg", scheme, 0.9, training.METHOD, seed).key, drop))
    found = {(line.data, line.sparsity): line for line in rule_two.table(easy, hard)}
    assert found["mnist", 0.8].verdict == "tie"
    assert found["fashion", 0.9].verdict == "pattern"
    assert found["fashion", 0.9].gain == pytest.approx(0.65)
    assert rule_two.table(easy[:2], [])[0].verdict == "seeds missing"
