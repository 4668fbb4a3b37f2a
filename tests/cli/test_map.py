"""`prunus map`, and what `prune` and `train` make of its plan."""

import json
import sys
from pathlib import Path

import onnx
import pytest

from prunus.cli.main import BAD_INPUT, DONE, run
from prunus.mapping import options
from prunus.mapping.options import Sources
from prunus.training.exported import module_name
from prunus.training.plan import read_plan
from tests.mapping.fakes import network, sources
from tests.training.toy import write_toy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and times by a formula in place of measured ones."""
    onnx.save(network(), tmp_path / "model.onnx")

    def by_formula(read: options.Network, *_: object) -> Sources:
        return sources(read.model)

    monkeypatch.setattr(options, "sources_of", by_formula)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["--speedup", "2.5x"], ["--target-latency", "0.8ms"], ["--sparsity", "0.8"]])
@pytest.mark.parametrize("method", ["rules", "exact"])
def test_plan_is_shown_written_and_carried_out(
    words: list[str], method: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["map", "model.onnx", *words, "--method", method, "--json", "map.json", "--check", "3"]) == DONE
    printed = capsys.readouterr().out
    shown = json.loads(Path("map.json").read_text())
    for layer in shown["layers"]:
        assert layer["name"] in printed and layer["reason"]
    assert "times as fast" in printed and "3 interpolated times" in printed
    assert run(["prune", "model.onnx", "--plan", "plan.yaml", "-o", "sparse.onnx", "--json", "pruned.json"]) == DONE
    pruned = {layer["weight"]: layer for layer in json.loads(Path("pruned.json").read_text())["layers"]}
    for layer in shown["layers"]:
        found = pruned[layer["weight"]]
        assert found["scheme"] == layer["scheme"]
        if layer["scheme"]:
            assert found["sparsity"] == pytest.approx(layer["sparsity"], abs=0.02)
    stated = {prop.key: prop.value for prop in onnx.load("sparse.onnx").metadata_props}["prunus.scheme"]
    assert set(stated.split(", ")) == {layer["scheme"] for layer in shown["layers"]} - {None}


def test_explore_draws_what_a_network_could_have(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["explore", "model.onnx", "--schemes", "filter", "--sparsities", "0.9", "--threads", "1"]
    assert run([*words, "--frontier", "f.svg", "--json", "f.json"]) == DONE, capsys.readouterr().err
    assert "frontier, ms" in capsys.readouterr().out and Path("f.svg").read_text().endswith("</svg>\n")
    points = json.loads(Path("f.json").read_text())["frontier"]
    assert points[0]["ms"] == points[0]["dense_ms"] and points[0]["loss"] == 0
    assert [p["ms"] for p in points] == sorted((p["ms"] for p in points), reverse=True) and len(points) > 3
    for more, said in (
        (["--frontier", "f.pdf"], "--frontier f.pdf: expected a name in .svg or .png"),
        (["--frontier", "none/f.svg"], "none/f.svg: can't be written"),
        (["--data", "train.npz"], "--data needs --frontier"),
    ):
        assert run([*words, *more]) == BAD_INPUT
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--plot", "--frontier"])
def test_pictures_that_cannot_be_made_are_refused_before_anything_is_measured(
    option: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("prunus.compiler.explore.explore", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr("prunus.cli.frontier.points_of", lambda *_: pytest.fail("measured"))
    assert run(["explore", "model.onnx", option, "f.svg"]) == BAD_INPUT
    assert f"{option} needs the package matplotlib" in capsys.readouterr().err


def test_the_same_bytes(folder: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        assert run(["map", "model.onnx", "--speedup", "2", "-o", name, "-q"]) == DONE
    assert Path("a.yaml").read_bytes() == Path("b.yaml").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "found none, expected one of --target-latency"),
        (["--speedup", "2", "--sparsity", "0.9"], "found --speedup and --sparsity"),
        (["--speedup", "100x"], "--speedup 100: budget 0.01529 ms: the best reachable is"),
        (["--speedup", "2", "--method", "magic"], "--method 'magic': expected one of rules, exact"),
        (["--speedup", "2", "--difficulty", "so-so"], "expected one of easy, hard"),
        (["--speedup", "2", "--calibration", "nowhere"], "nowhere: no such file"),
        (["--speedup", "2", "--method", "tpe"], "--data missing"),
        (["--speedup", "2", "--data", "train.npz"], "--data with --method rules: expected one of search, tpe, nsga2"),
        (["--speedup", "2", "--storage", "sqlite:///t.db"], "--storage with --method rules"),
        (["--sparsity", "0.5", "--method", "tpe", "--data", "d"], "--sparsity with --method tpe"),
        (["--speedup", "2", "-o", "model.onnx"], "model.onnx: is the model"),
        (["--speedup", "2", "-o", "none/plan.yaml"], "none/plan.yaml: can't be written"),
    ],
)
def test_refuses_before_anything_is_measured(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["map", "model.onnx", *words]) == BAD_INPUT
    assert said in " ".join(capsys.readouterr().err.splitlines()[-1:])
    assert not Path("plan.yaml").exists()


def test_a_budget_that_asks_for_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["map", "model.onnx", "--target-latency", "1s"]) == DONE
    assert "nothing is pruned: the network as it is keeps this budget" in capsys.readouterr().out
    assert run(["prune", "model.onnx", "--plan", "plan.yaml", "-o", "same.onnx"]) == DONE
    assert run(["map", "model.onnx", "--speedup", "2"]) == DONE
    assert "nothing is pruned" not in capsys.readouterr().out


def test_estimates_are_not_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["map", "model.onnx", "--speedup", "1.1", "--target", "aarch64-neon", "--check", "2"]
    assert run(words) == BAD_INPUT
    assert "its times are estimates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plan", "words", "said"),
    [
        ("layers: [{match: conv9, skip: true}]", [], "plan.yaml: rule 'conv9' matches no layer; did you mean"),
        ("layers: [{match: conv0, scheme: filter, sparsty: 0.5}]", [], "layers.0.sparsty: unknown key; did you mean"),
        ("layers: [{match: conv0, skip: true}]\nmachin: x", [], "machin: unknown key; did you mean machine?"),
        ("layers: [{match: conv0, keep: true}]", [], "'conv0': keep, expected skip"),
        ("layers: [{match: conv0, skip: true}]", ["--scheme", "filter"], "--plan and --scheme"),
        ("layers: [{match: conv0, skip: true}]", ["--sparsity", "0.5"], "--plan and --sparsity"),
    ],
)
def test_prune_refuses_plans(
    plan: str, words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plan.yaml").write_text(plan)
    assert run(["prune", "model.onnx", "--plan", "plan.yaml", "-o", "sparse.onnx", *words]) == BAD_INPUT
    assert said in capsys.readouterr().err
    assert not Path("sparse.onnx").exists()


def test_train_carries_a_plan_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of a network that was exported by torch are found again in it, BatchNorm or not."""
    pytest.importorskip("torch")
    Path("recipe.yaml").write_text(json.dumps(write_toy(folder)))
    assert run(["train", "recipe.yaml", "-o", "first", "-q"]) == DONE
    words = ["map", "first/sparse.onnx", "--input-shape", "x=1,1,8,8", "--ends", "--sparsity", "0.7"]
    assert run([*words, "-q"]) == DONE, capsys.readouterr().err
    assert run(["train", "recipe.yaml", "-o", "second", "--plan", "plan.yaml", "--json", "r.json"]) == DONE
    trained = {layer["name"]: layer["scheme"] for layer in json.loads(Path("r.json").read_text())["layers"]}
    planned = {module_name(rule.match): rule.scheme for rule in read_plan(Path("plan.yaml")).layers}
    assert trained == planned and set(planned) == {"1", "5", "8"} and any(planned.values())
