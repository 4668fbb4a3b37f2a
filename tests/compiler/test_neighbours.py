"""A full search goes on from the best candidate: neighbours are legal, compute the same, and are remembered."""

from pathlib import Path

import numpy as np
import pytest

import prunus
from prunus.compiler.choice import Choice, LayerShape, candidates, examine
from prunus.compiler.neighbours import neighbours
from prunus.compiler.schedule import refusal, schedule_text
from prunus.compiler.watch import Tuning
from prunus.kernels.isa import ISAS, Isa
from tests.runtime.networks import Net, assert_agrees, feeds_for, onnxruntime_run


def matrix(kind: str) -> np.ndarray:
    """64 x 256, of ones and zeros."""
    rng = np.random.default_rng(3)
    if kind == "rows and columns":
        mask = np.zeros((8, 8, 4, 64), bool)
        for strip in range(8):
            for block in range(4):
                rows, columns = rng.choice(8, 3, replace=False), rng.choice(64, 17, replace=False)
                mask[strip, rows[:, None], block, columns] = True
        return mask.reshape(64, 256).astype(np.float32)
    if kind == "columns":
        return np.repeat(rng.random((8, 256)) < 0.1, 8, axis=0).astype(np.float32)
    return (rng.random((64, 256)) < 0.1).astype(np.float32)


KINDS = ("columns", "rows and columns", "anywhere")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.target)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_fit_and_differ(isa: Isa, kind: str, threads: int) -> None:
    shape = LayerShape(64, 256, 1, 27, threads)
    for choice in candidates(shape, examine(matrix(kind)), isa):
        near = neighbours(choice, shape, isa)
        assert len(near) == len(set(near)) >= 2
        assert choice not in near
        assert all(refusal(other, shape, isa) is None for other in near)


def test_no_neighbours_where_there_is_one_way() -> None:
    isa = ISAS[0]
    assert neighbours(Choice("rows", (1,), 1, 64, 1, False), LayerShape(64, 256, 1, 0, 1), isa) == []


def test_full_measures_more_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.compiler.compile.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("prunus.compiler.tune.FULL_BUDGET_S", 0.02)
    net = Net({"x": (1, 64, 9, 9)})
    net.constant(matrix("columns")[:, :64].reshape(64, 64, 1, 1))
    model = net.model(net.add("Relu", net.add("Conv", "x", "w0")))
    steps: list[object] = []
    fast = prunus.compile(model, threads=1, tune="fast")
    full = prunus.compile(model, threads=1, tune="full", progress=steps.append)
    said = [step for step in steps if isinstance(step, Tuning)]
    assert [(step.decided, step.tried > 0) for step in (said[0], said[1], said[-1])] == [
        (False, False), (False, True), (True, True),
    ]  # fmt: skip
    assert {(step.index, step.layers) for step in said} == {(0, 1)}
    assert said[-1].choice is not None and f"{said[-1].ms:.3f} ms" in full.explain()[-1].reason
    assert said[-1].tried == 1 + len(full.explain()[-1].refused) >= said[0].measuring + said[1].measuring
    assert all(step.gain is None or step.gain >= 1 for step in said)
    tried = [len(session.explain()[-1].refused) for session in (fast, full)]
    assert tried[1] > tried[0]
    again = prunus.compile(model, threads=1, tune="full")
    assert "measured before" in schedule_text(again.program, 1)
    choices = [[op.attrs.get("choice") for op in session.program.ops] for session in (full, again)]
    assert choices[0] == choices[1]
    feeds = feeds_for(model)
    assert_agrees(full.run(None, feeds), onnxruntime_run(model, feeds))
