"""The table of accuracies and the frontier, from rows as they are written."""

from pathlib import Path

import numpy as np
import pytest
from bench.tables import pruning

from bench import frontier, training


def row(key: str, **fields: object) -> dict[str, object]:
    machine = {"cpu": "c", "target": "t", "cores": 2, "l1": 0, "l2": 0, "l3": 0}
    return {"key": key, "machine": machine, "packages": {}, "date": "2026-01-01", "commit": "abc", **fields}


def test_mean_spread_and_verdict_over_seeds() -> None:
    """Bounds are on means; fewer seeds than asked don't pass; a row measured again counts once."""
    rows = [row(f"vgg bcr:8x64 0.9 gradual seed {seed}", drop=drop) for seed, drop in enumerate((0.5, 0.9, 0.4))]
    rows += [row("vgg bcr:8x64 0.8 gradual seed 0", drop=0.1), row("vgg unstructured 0.9 gradual seed 0", drop=9.0)]
    rows += [row("vgg unstructured 0.9 gradual seed 0", drop=0.4), row("vgg bcr:8x64 0.9 admm seed 0", drop=7.0)]
    lines = {line.what: line for line in training.table(rows)}
    nine = lines["bcr:8x64 90%"]
    assert (round(nine.drop, 6), round(nine.spread, 6), nine.seeds, nine.verdict) == (0.6, 0.5, 3, "pass")
    assert lines["bcr:8x64 80%"].verdict == "seeds missing"
    assert (lines["unstructured 90%"].drop, lines["unstructured 90%"].verdict) == (0.4, "short")
    dense = row("vgg dense seed 0", network="vgg", accuracy=0.925, macs=5_000_000)
    text = pruning.training_table([*rows, dense])
    assert "| vgg | bcr:8x64 90% | **0.60** (0.50, 3) | 0.7 | pass |" in text
    assert "vgg, dense: 92.50 % (mean of 1), 5.0 million multiply-adds." in text


def test_cases_are_named_once_and_the_table_is_among_them() -> None:
    keys = [case.key for case in training.cases()]
    assert len(set(keys)) == len(keys)
    for scheme, sparsity in training.BOUNDS:
        assert training.Case("resnet20", scheme, sparsity, training.METHOD, 2).key in keys


def test_frontier_is_what_nothing_beats() -> None:
    points = np.array([(1.0, 90.0), (2.0, 89.0), (2.0, 92.0), (3.0, 92.0), (4.0, 93.0), (1.0, 88.0)])
    assert frontier.best(points) == [0, 2, 4]


def test_the_same_rows_draw_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"scheme": scheme, "method": method, "ms": ms, "accuracy": accuracy}
        for scheme, method, ms, accuracy in (
            ("dense", "dense", 0.2, 0.93), ("dense", "onnxruntime", 0.3, 0.93), ("bcr:8x64", "admm", 0.05, 0.92),
        )
    ]  # fmt: skip
    for name in ("a.svg", "b.svg"):
        frontier.draw(rows, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"dense, onnxruntime" in (tmp_path / "a.svg").read_bytes()
