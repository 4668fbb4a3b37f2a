"""prunus search as a run of steps: budget, files, going on after a stop, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

import prunus
from prunus.errors import CheckpointError, PrunusWarning, RecipeError, ShrinkError, TrainingError, UnsupportedError
from prunus.search import trainer
from prunus.search.costs import macs
from prunus.search.meet import steps_down
from prunus.search.pas import WidthSearch
from prunus.search.recipe import Budget, load_search_recipe
from prunus.search.results import Outcome, layer_widths, met, plot, write
from prunus.search.times import Compiled
from prunus.search.trainer import SearchRun
from prunus.training.recipe import load_recipe
from prunus.training.shrink.widths import lanes
from prunus.training.trainer import train
from tests.search.toy import write_search
from tests.training.shrink.nets import IMAGE, block
from tests.training.toy import samples


def ran(recipe: dict[str, Any], output: Path, **more: Any) -> SearchRun:
    run = SearchRun(load_search_recipe(recipe), output, threads=1, **more)
    run.run()
    return run


def widths(run: SearchRun) -> list[int]:
    assert run.found is not None
    return [after for _, after in run.found.widths.values()]


@pytest.mark.parametrize("method", ["pas", "bn-gamma", "uniform", "magnitude"])
def test_within_the_budget(method: str, tmp_path: Path) -> None:
    run = ran(write_search(tmp_path, method=method), tmp_path / "found")
    assert run.found is not None and 0.3 < run.found.cost <= 0.5
    assert set(run.scores) == {"dense", "searched", "found"}
    phases = [json.loads(line)["phase"] for line in (tmp_path / "found/metrics.jsonl").read_text().splitlines()]
    middle = ["search"] * 2 if method == "pas" else ["finetune"] * 2
    assert phases == ["dense", *middle, "finetune"]  # equal epochs


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    run = ran(write_search(tmp_path), folder)
    outcome = write(run)
    x = samples(5, 3)["x"]
    with torch.no_grad():
        masked = run.network.eval()(torch.from_numpy(x)).numpy()
    session = onnxruntime.InferenceSession(folder / "found.onnx", providers=["CPUExecutionProvider"])
    for answers in (session.run(None, {"x": x})[0], prunus.load(folder / "found.prunus").run(None, {"x": x})[0]):
        np.testing.assert_allclose(answers, masked, atol=1e-5 * np.abs(masked).max())
    listed = YAML(typ="safe").load((folder / "widths.yaml").read_text())["layers"]
    assert listed == {name: list(pair) for name, pair in run.found.widths.items()}  # type: ignore[union-attr]
    shapes = {tuple(t.dims[:1]) for t in onnx.load(folder / "found.onnx").graph.initializer if len(t.dims) == 4}
    assert shapes == {(listed["1.weight"][1],), (listed["5.weight"][1],)}
    assert outcome.macs[1] / outcome.macs[0] == pytest.approx(run.found.cost)  # type: ignore[union-attr]
    assert outcome.macs[0] == 64 * 72 + 9 * 16 * 72 + 144 * 4
    assert (folder / "widths.svg").read_text().count("<path") > 2
    assert json.loads((folder / "report.json").read_text())["scores"]["found"]["accuracy"] > 0.5
    assert load_search_recipe(folder / "recipe.yaml").budget.macs == 0.5


def test_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_search(tmp_path, checkpoint={"steps": 4})
    whole = ran(recipe, tmp_path / "whole")
    real = SearchRun._train_step
    for at in (5, 9, 14, 21):  # dense, twice in the search, fine-tuning

        def stopped(run: SearchRun, at: int = at) -> float:
            if run.step == at:
                raise KeyboardInterrupt
            return real(run)

        monkeypatch.setattr(SearchRun, "_train_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            ran(recipe, tmp_path / f"stopped{at}")
        monkeypatch.setattr(SearchRun, "_train_step", real)
        again = ran(recipe, tmp_path / f"stopped{at}")
        assert widths(again) == widths(whole)
        for name, tensor in whole.plain.state_dict().items():
            assert torch.equal(tensor, again.plain.state_dict()[name]), name
        assert again.search is not None and whole.search is not None
        assert again.search.history == whole.search.history


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    ran(write_search(tmp_path), tmp_path / "found")
    with pytest.raises(CheckpointError, match="of another recipe: seed is 0, expected 1; --fresh starts again"):
        ran(write_search(tmp_path, seed=1), tmp_path / "found")
    ran(write_search(tmp_path, seed=1), tmp_path / "found", fresh=True)


@pytest.mark.parametrize("method", ["pas", "uniform"])
def test_a_budget_of_milliseconds(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a microsecond for 100 multiply-adds and one for nothing."""
    from prunus.compiler.tune import Tuner
    from prunus.search import meet, times
    from prunus.search.costs import macs
    from prunus.training.shrink.follow import find_groups

    def compiled(model: torch.nn.Module, x: torch.Tensor, threads: int | None = None) -> Compiled:
        return Compiled(None, 1e-3 + 1e-5 * macs(find_groups(model, x)).whole / len(x))  # type: ignore[arg-type]

    monkeypatch.setattr(
        Tuner, "time_ms",
        lambda self, layer, graph: 1e-5 * layer.matrix.size * np.prod(graph.values[layer.node.outputs[0]].shape[2:]),
    )  # fmt: skip
    monkeypatch.setattr(times, "latencies_for", lambda *_: times.Latencies(tmp_path / "l.sqlite", times_place()))
    for module in (meet, trainer):
        monkeypatch.setattr(module, "compiled", compiled)
    recipe = write_search(tmp_path, budget={"latency": 0.085}, method=method)
    run = ran(recipe, tmp_path / "found")
    assert run.dense_ms == pytest.approx(1e-3 + 1e-5 * 15552)
    assert run.search is not None and run.round_to == steps_down(lanes())
    assert compiled(run.search.shrink(), run.example()).ms == pytest.approx(0.085, rel=0.15)  # a channel is a fifth
    rows = [json.loads(line) for line in (tmp_path / "found/metrics.jsonl").read_text().splitlines()]
    assert [("ms" in row) for row in rows] == [False, method == "pas", method == "pas", False]

    def slower(model: torch.nn.Module, x: torch.Tensor, threads: int | None = None) -> Compiled:
        raise AssertionError("what was measured before the stop holds")

    monkeypatch.setattr(meet, "compiled", slower)
    again = SearchRun(load_search_recipe(recipe), tmp_path / "found", threads=1)
    monkeypatch.setattr(meet, "compiled", compiled)
    assert again.latency is not None and run.latency is not None
    assert again.latency.factor == pytest.approx(run.latency.factor)
    title = "widths under a budget of 0.085 ms"
    assert method != "pas" or title.encode() in plot(run.search)
    at, real = list[int](), trainer.calibrate
    monkeypatch.setattr(trainer, "calibrate", lambda search, *more: (at.append(search.done), real(search, *more)))
    short = {"dense": 0, "search": 1, "finetune": 0}
    with pytest.warns(PrunusWarning, match="no better than chance"):
        ran(write_search(tmp_path, budget={"latency": 0.085}, method=method, epochs=short), tmp_path / "short")
    assert at == ([2, 3, 4, 6] if method == "pas" else []), "once, at the end, is too late"
    with pytest.raises(ShrinkError, match=r"budget 5 ms: the whole network takes 0\.1565 ms, expected less"):
        ran(write_search(tmp_path, budget={"latency": 5}), tmp_path / "lax")
    with pytest.raises(
        ShrinkError, match=r"budget 0\.002 ms: can't be reached, expected at least 0\.0\d+ ms, which is 1"
    ):
        ran(write_search(tmp_path, budget={"latency": 0.002}), tmp_path / "strict")
    coarse = write_search(tmp_path, budget={"latency": 0.06}, method=method, round_to=4)
    with pytest.warns(PrunusWarning, match=r"budget 0\.06 ms: missed by \d+%, 0\.\d+ ms measured"):
        ran(coarse, tmp_path / "coarse")


def test_budgets_are_told_as_they_were_given() -> None:
    outcome = Outcome((), (2.0, 1.0), (2.0, 1.0), (8.0, 3.96), 0.343, 0.345, {}, {})
    assert met(outcome, Budget(latency=4)) == "3.96 ms, budget 4 ms"
    assert met(outcome, Budget(macs=0.345)) == "34.30% of the whole cost, budget 34.50%"


def times_place() -> Any:
    from prunus.compiler.latency import Place

    return Place("here", "these", 1)


def test_widths_in_steps(tmp_path: Path) -> None:
    run = ran(write_search(tmp_path, round_to=4, budget={"macs": 0.6}), tmp_path / "found")
    assert all(after % 4 == 0 for after in widths(run))
    assert run.found is not None and run.found.cost <= 0.6


def test_found_widths_are_pruned_inside(tmp_path: Path) -> None:
    """Search, then a fine-grained scheme in what was found."""
    toy = write_search(tmp_path)
    run = ran(toy, tmp_path / "found")
    write(run)
    recipe = {
        "model": {"build": f"{tmp_path}/found/found.onnx", "input": [1, 8, 8]}, "data": toy["data"],
        "optimizer": {"rate": 0.005}, "epochs": {"sparsify": 1, "recover": 1},
        "layers": [{"match": "re:5", "scheme": "unstructured", "sparsity": 0.5}],
    }  # fmt: skip
    trained = train(load_recipe(recipe), tmp_path / "sparse", threads=1)
    assert trained.scores["dense"].accuracy == pytest.approx(run.scores["found"].accuracy)
    shapes = {layer.shape[0] for layer in trained.report.layers if len(layer.shape) == 4}
    assert shapes <= set(widths(run))
    assert trained.report.sparsity == pytest.approx(0.5, abs=0.01)


def test_an_onnx_file(tmp_path: Path) -> None:
    """BatchNorm is folded there, so weights are all that is learned."""
    first = ran(write_search(tmp_path), tmp_path / "first")
    write(first)
    toy = write_search(tmp_path, model={"build": f"{tmp_path}/first/found.onnx"}, budget={"weights": 0.7})
    second = ran(toy, tmp_path / "second")
    assert second.n_dense == 0 and sum(widths(second)) < sum(widths(first))
    assert write(second).weights[1] <= 0.7 * write(first).weights[1]
    with pytest.raises(ShrinkError, match="no BatchNorm with scales, expected method pas, uniform or magnitude"):
        ran({**toy, "method": "bn-gamma"}, tmp_path / "third")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"budget": {"macs": 0.001}}, ShrinkError, r"budget 0\.001: can't be reached, expected at least"),
        ({"budget": {}}, RecipeError, "budget: found none, expected one of macs, weights and latency"),
        ({"budget": {"macs": 0.5, "latency": 3}}, RecipeError, "found macs and latency, expected one of"),
        ({"budget": {"macs": 1.5}}, RecipeError, "budget.macs: found 1.5"),
        ({"epochs": {"serach": 2}}, RecipeError, "epochs.serach: unknown key; did you mean search?"),
        ({"model": {"build": "nowhere.py:make"}}, TrainingError, "nowhere.py"),
        ({"round_to": 16, "budget": {"macs": 0.1}}, ShrinkError, "in steps of 16 channels, expected at least"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_trained(
    changes: dict[str, Any], error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(SearchRun, "_train_step")
    with pytest.raises(error, match=said):
        ran(write_search(tmp_path, **changes), tmp_path / "found")


def test_scales_are_missed_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))\n"
    )
    monkeypatch.delattr(SearchRun, "_train_step")
    with pytest.raises(ShrinkError, match="no BatchNorm with scales"):
        ran(write_search(tmp_path, model={"build": f"{tmp_path}/bare.py:make"}, method="bn-gamma"), tmp_path / "found")


def test_an_untrained_network_is_no_place_to_search(tmp_path: Path) -> None:
    epochs = {"dense": 0, "search": 1, "finetune": 0}
    with pytest.warns(PrunusWarning, match=r"no better than chance: expected model\.weights, or epochs\.dense"):
        ran(write_search(tmp_path, epochs=epochs), tmp_path / "found")


def test_a_grouped_convolution_says_what_widths_it_allows() -> None:
    net = nn.Sequential(block(3, 16), block(16, 16, groups=4), block(16, 8, k=1), nn.Conv2d(8, 2, 1))
    search = WidthSearch(net, IMAGE, macs, 0.6, 10)
    notes = {layer.weight: layer.note for layer in layer_widths(search.groups, search.finish().widths)}
    assert notes["1.0.weight"] == "grouped: widths are multiples of 4"
    assert notes["2.0.weight"] == "" and "output" in notes["3.weight"]
    smaller = search.shrink()
    assert smaller[1][0].out_channels % 4 == 0  # type: ignore[index]


def test_a_network_that_cannot_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(64, 4)\n"
        "    def forward(self, x):\n"
        "        return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))\n"
    )
    monkeypatch.delattr(SearchRun, "_train_step")
    with pytest.raises(UnsupportedError, match="Odd: gt: decides by the values of a tensor"):
        ran(write_search(tmp_path, model={"build": f"{tmp_path}/odd.py:Odd", "input": [1, 8, 8]}), tmp_path / "found")
