"""Points of the curves, which rows are shown, and that what is drawn depends on the rows only."""

from pathlib import Path
from typing import Any

import pytest
from bench.curves import COLOURS, CURVES, GROWTH, Point, draw, points, shown
from bench.zoo import ZOO

from bench import curves, store
from prunus.sparsity.scheme import parse


def machine(name: str, cores: int = 2) -> dict[str, Any]:
    return {"cpu": name, "target": "t", "cores": cores, "l1": 1, "l2": 1, "l3": 1}


def row(point: Point, name: str = "quince", cores: int = 2, ms: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "key": point.key, "panel": point.panel, "scheme": point.scheme or "dense", "at": point.at, "quick": False,
        "machine": machine(name, cores), "ms": {"prunus": ms, "onnxruntime": 5.0}, "zeros": 0.9, **more,
    }  # fmt: skip


def test_points_are_told_apart_and_can_be_made() -> None:
    found = list(points(4))
    assert len({point.key for point in found}) == len(found)
    assert {p.at for p in found if p.panel == "threads"} == {1, 2, 4}
    assert {p.at for p in points(1) if p.panel == "threads"} == {1, 2}
    for point in found:
        case = point.case()
        assert case.network in ZOO and (case.scheme is None or parse(case.scheme))
        assert (case.sparsity is None) == (point.scheme == "1:16")
    batch = Point("batch", "bcr:8x64", 8).case()
    assert (batch.options, batch.threads, batch.sparsity) == ((("batch", 8),), 1, 0.9)
    assert Point("threads", None, 2).case().threads == 2 and Point("sparsity", None, 0.0, 0.0).case().sparsity == 0
    assert {*CURVES, *GROWTH} <= {*COLOURS, None}


def test_inputs_have_the_size_and_batch_of_the_point() -> None:
    for point, shape in ((Point("size", None, 64), [1, 3, 64, 64]), (Point("batch", None, 4), [4, 3, 224, 224])):
        (port,) = point.case().model().graph.input
        assert [dim.dim_value for dim in port.type.tensor_type.shape.dim] == shape


def test_the_newest_complete_machine_is_shown() -> None:
    all_points = list(points(2))
    old = [row(p, "old", ms=2.0) for p in all_points]
    new = [row(p, "new", ms=3.0) for p in all_points]
    assert {r["ms"]["prunus"] for r in shown(old + new)} == {3.0}
    assert {r["ms"]["prunus"] for r in shown(old + new[:-1])} == {2.0}, "the new one isn't complete"
    assert len(shown(old[:5] + new[:7])) == 7, "none is complete"
    again = [*old, row(all_points[0], "old", ms=9.0), row(all_points[1], "old", ms=99.0, quick=True)]
    assert sorted({r["ms"]["prunus"] for r in shown(again)}) == [2.0, 9.0]
    more_cores = [row(p, "new", cores=4) for p in all_points]
    assert {r["machine"]["cpu"] for r in shown(old + more_cores)} == {"old"}, "four threads are missing"
    assert shown([]) == []


def test_first_rows_have_no_keys() -> None:
    first = {"panel": "size", "scheme": "dense", "at": 64, "cpu": {"name": "q", "physical_cores": 2}, "ms": {}}
    (found,) = shown([first])
    assert (found["key"], found["machine"]["cores"]) == ("size dense 64", 2)
    assert shown(store.read(curves.RESULTS))


@pytest.mark.parametrize("panels", [curves.PANELS, ("schemes", "size")])
def test_same_rows_same_bytes(panels: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row(p, ms=1.0 + i) for i, p in enumerate(points(2)) if p.panel in panels]
    for name in ("a.svg", "b.svg"):
        draw(rows, tmp_path / name)
    text = (tmp_path / "a.svg").read_bytes()
    assert text == (tmp_path / "b.svg").read_bytes() and len(text) > 10_000
