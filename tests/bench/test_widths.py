"""The table of widths, from rows as they are written; and the tasks that are composed of small images."""

import pytest
import torch
from bench.tables import pruning
from torch import Tensor

from bench import scenes, store, width_goals, widths
from prunus.errors import ShrinkError
from prunus.search import families
from prunus.search.costs import macs
from prunus.training.shrink.follow import find_groups


def row(method: str, seed: int, quality: float, limit: str = "macs") -> dict[str, object]:
    machine = {"cpu": "c", "target": "t", "cores": 2, "l1": 0, "l2": 0, "l3": 0}
    case = widths.Case("pas-vgg", 0.5, method, limit, seed)
    return {
        "key": case.key, "network": "pas-vgg", "removed": 0.5, "method": method, "limit": limit, "seed": seed,
        "quality": quality, "dense": 0.93, "cost": 0.499, "ms": 0.1, "budget_ms": 0.1, "search_s": 30.0,
        "finetune_s": 80.0, "epochs": [2, 8], "machine": machine, "packages": {}, "date": "2026-01-01", "commit": "abc",
    }  # fmt: skip


def test_means_over_the_seeds_that_all_methods_have() -> None:
    rows = [row("pas", seed, quality) for seed, quality in ((0, 0.9), (1, 0.92), (2, 0.5))]
    rows += [row("uniform", 0, 0.89), row("uniform", 1, 0.9), row("pas", 0, 0.91)]
    rows += [row("pas", seed, 0.93, "latency") for seed in (0, 1)]
    rows.append({**row("pas", 0, 0.93), "key": "pas-vgg dense seed 0"})
    del rows[-1]["method"]
    (line,) = width_goals.table(rows)
    assert line.seeds == 2
    assert {name: round(value, 6) for name, value in line.quality.items()} == {
        "pas": 0.915, "uniform": 0.895, "pas-latency": 0.93,
    }  # fmt: skip
    assert round(line.pace, 6) == 1.5
    text = pruning.widths_table(rows)
    assert "| pas-vgg, 50% | 93.00 | **91.50** | - | 89.50 | - | 93.00 | 0.100 | 1.50 x | 2 |" in text
    assert "Not measured yet" in pruning.widths_table([])


def test_goals_and_what_was_reached() -> None:
    rows = [row("pas", seed, 0.9) for seed in (0, 1)] + [row("uniform", seed, 0.898) for seed in (0, 1)]
    rows += [row("bn-gamma", seed, 0.89) for seed in (0, 1)]
    rows += [{**row("pas", seed, 0.91, "latency"), "ms": 0.1 + 0.004 * seed} for seed in (0, 1)]
    found = {each.what.split(",")[0]: each for each in width_goals.verdicts(rows)}
    assert found["accuracy over BN-gamma"].verdict == "pass" and found["accuracy over uniform"].verdict == "short"
    assert found["accuracy over magnitude"].verdict == "not measured"
    assert round(found["multiply-adds beside the budget"].value or 0, 6) == 0.002
    assert round(found["milliseconds beside the budget"].value or 0, 6) == 0.04
    assert round(found["accuracy by time over by multiply-adds at equal ms"].value or 0, 6) == 1.0
    assert "| accuracy over uniform, points | 0.2 | at least 0.3 | short |" in pruning.widths_table(rows)


def test_rows_are_named_once_and_the_compared_one_comes_first() -> None:
    keys = [case.key for case in widths.cases()]
    assert len(set(keys)) == len(keys)
    for case in widths.cases():
        if case.limit == "latency":
            assert keys.index(case.key.replace("latency", "macs")) < keys.index(case.key)


def test_ready_families_are_those_that_were_found() -> None:
    rows = store.latest(store.read(widths.RESULTS))
    for name, some in families.FOUND.items():
        for removed, expected in some.items():
            row = rows[widths.Case(name, removed, "pas", "macs", 0).key]
            network = families.found(name, removed)
            assert list(expected) == width_goals.own_widths(row)
            assert macs(find_groups(widths.merged(network.eval()), torch.zeros(1, 1, 28, 28))).whole == row["macs"]
    with pytest.raises(ShrinkError, match=r"no widths of 'pas-vgg' with 0\.1 .*; there are pas-vgg: 0\.3, 0\.5"):
        families.found("pas-vgg", 0.1)


def items(n: int) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_masks_are_where_objects_are() -> None:
    pairs = scenes.canvases(items(5), torch.arange(5), 12, 0)
    classes, masks = pairs.y[:, 0].long(), pairs.y[:, 1:].transpose(1, 2).bool()
    there = classes != scenes.CLASSES
    assert set(classes[there].tolist()) <= set(range(5)) and 0.4 < there.float().mean() < 1
    assert not masks[~there].any() and masks[there].any(1).all()
    seen = (pairs.x > 0).reshape(12, scenes.SIDE // 2, 2, -1, 2).any(4).any(2).flatten(1)
    assert (masks.any(1) >= seen).all()

    class Perfect(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            side = scenes.SIDE // 2
            known = torch.nn.functional.one_hot(classes, scenes.CLASSES + 1).transpose(1, 2).float()
            return known.unflatten(2, (scenes.CELLS,) * 2), masks.float().unflatten(2, (side, side)) - 0.5

    assert scenes.finding_score(Perfect(), pairs) == {"quality": 1.0}


def test_an_image_is_like_itself() -> None:
    pairs = scenes.outlines(items(4))
    assert set(pairs.x.unique().tolist()) == {0, 1}
    assert torch.allclose(scenes.ssim(pairs.y, pairs.y), torch.ones(4))
    assert float(scenes.ssim(pairs.y, 1 - pairs.y).max()) < 0.1


def test_every_network_can_be_searched() -> None:
    for name, task in widths.TASKS.items():
        x = torch.zeros(2, 1, 28, 28) if name != "segmentation" else torch.zeros(2, 1, scenes.SIDE, scenes.SIDE)
        groups = find_groups(widths.merged(task.make()), x)
        assert groups.n > 50 and 1e6 < macs(groups).whole / 2 < 6e7, name
