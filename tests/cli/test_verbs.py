"""Each verb of the list: its help has an example, and the example works."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from prunus.benchmark.race import Result, Row
from prunus.cli.app import VERBS
from prunus.cli.heat import heat_map
from prunus.cli.main import BAD_INPUT, DONE, NO, run
from prunus.compiler.explore import ExploreRow
from prunus.runtime.report import ExplainRow, ProfileRow
from tests.runtime.networks import classifier, two_ports
from tests.search.toy import write_search
from tests.training.toy import write_toy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name, and current."""
    onnx.save(classifier("batch"), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32))
    images = np.random.default_rng(1).random((60, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images, y=np.arange(60) % 10)
    (tmp_path / "recipe.yaml").write_text(json.dumps(write_toy(tmp_path)))
    (tmp_path / "search.yaml").write_text(json.dumps(write_search(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(verb: str) -> str:
    return str(import_module(f"prunus.cli.{verb}").EXAMPLE)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_the_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == DONE
    printed = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert f"Example: {example(verb)}" in printed


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "demo"])  # the demo: tests/demo
def test_example_works(verb: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(example(verb))
    assert words[:2] == ["prunus", verb]
    short = {"benchmark": ["-t", "0.05", "-w", "0"]}.get(verb, [])
    assert run([*words[1:], *short, "--json", "shown.json"]) == DONE, capsys.readouterr().err
    assert capsys.readouterr().out.strip()
    assert json.loads((folder / "shown.json").read_text())
    if "-o" in words:
        assert (folder / words[words.index("-o") + 1]).stat().st_size


def test_json_on_stdout_is_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["prune", "model.onnx", "-o", "s.onnx", "--sparsity", "0.5", "--scheme", "filter", "--json", "-"]) == DONE
    )
    shown = json.loads(capsys.readouterr().out)
    assert shown["output"] == "s.onnx"
    assert {layer["scheme"] for layer in shown["layers"]} == {"filter"}


def test_quiet_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "model.onnx", "-q", "--tune", "off"]) == DONE
    assert (folder / "model.prunus").exists()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_run_writes_what_the_session_says(folder: Path) -> None:
    import prunus

    assert run(["compile", "model.onnx", "-q", "--tune", "off", "-o", "m.prunus"]) == DONE
    assert run(["run", "m.prunus", "x=x.npy", "-o", "y.npy", "-q"]) == DONE
    expected = prunus.load("m.prunus").run(None, {"x": np.load("x.npy")})[0]
    np.testing.assert_array_equal(np.load("y.npy"), expected)


def test_run_top_five(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    port = SimpleNamespace(name="x", shape=["batch", 3, 8, 8], type="tensor(float)")
    scores = np.array([[0.1, 0.7, -1, 0.2, 0.0, 0.3]], np.float32)
    session = SimpleNamespace(
        get_inputs=lambda: [port], get_outputs=lambda: [SimpleNamespace(name="y")], run=lambda names, feeds: [scores]
    )
    monkeypatch.setattr("prunus.cli.run.open_model", lambda *a, **k: session)
    assert run(["run", "model.onnx", "x.npy"]) == DONE
    line = next(line for line in capsys.readouterr().out.splitlines() if "0.7" in line)
    assert line.split() == ["0", "1", "0.7", "5", "0.3", "3", "0.2", "0", "0.1", "4", "0"]


def test_several_inputs_need_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(two_ports(), folder / "two.onnx")
    feeds = {name: np.ones((1, 3, 6, 6), np.float32) for name in "ab"}
    np.savez(folder / "both.npz", **feeds)  # type: ignore[arg-type]
    assert run(["run", "two.onnx", "both.npz", "-o", "r.npz", "-q"]) == DONE
    with np.load("r.npz") as results:
        assert len(results.files) == 2
    assert run(["run", "two.onnx", "x.npy", "-q"]) == 2
    assert "a, b" in capsys.readouterr().err
    assert run(["run", "two.onnx", "both.npz", "-o", "r.npy", "-q"]) == 2


def test_profile_passes_shapes_and_shows_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: dict[str, Any] = {}

    def profile(feeds: dict[str, Any]) -> list[ProfileRow]:
        fed.update(feeds)
        return [ProfileRow("n1", "conv", "rows 4x3", "bcr:8x64", 0.9, 0.5, 12.5, 0.25, 0.75, "memory")]

    port = SimpleNamespace(name="x", shape=["batch", 3, "h", 8], type="tensor(float)")
    session = SimpleNamespace(
        threads=1,
        get_inputs=lambda: [port],
        profile=profile,
        explain=lambda: [
            ExplainRow("n1", "conv", "rows 4x3", None, None, "", (("gemv", "too wide"),), 0.4, 0.8, "memory")
        ],
    )
    monkeypatch.setattr("prunus.cli.profile.open_model", lambda *a, **k: session)
    assert run(["profile", "m.onnx", "-v", "--input-shape", "x=2,3,5,8"]) == DONE
    printed = capsys.readouterr().out
    assert fed["x"].shape == (2, 3, 5, 8)
    assert all(
        word in printed for word in ("n1", "0.9000", "0.5000", "12.5", "25%", "75%", "memory", "80%", "gemv: too wide")
    )


def test_benchmark_of_several_streams(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "benchmark model.onnx --engines prunus,onnxruntime --threads 1 --streams 2 -t 0 -w 0 --tune off --json b.json"
    )
    assert run(command.split()) == DONE
    printed = capsys.readouterr().out
    assert "inferences/s" in printed and "2 callers" in printed
    result = json.loads((folder / "b.json").read_text())["result"]
    assert (result["threads"], result["streams"]) == (1, 2)
    assert all(row["per_second"] > 0 for row in result["rows"])


def test_benchmark_mismatch_is_no(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = Result("b m", 1, 1, None, (Row("a", "m", error=0.5),), ("output mismatch: a m",), ())
    monkeypatch.setattr("prunus.benchmark.race.benchmark", lambda *a, **k: result)
    assert run(["benchmark", "m.onnx", "-q"]) == NO
    assert run(["benchmark", "m.onnx"]) == NO
    assert "output mismatch: a m" in capsys.readouterr().err


def test_explore_blocks(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A block per layer in table and JSON, and a picture of all that were tried."""
    monkeypatch.setattr("prunus.compiler.blocks.ROWS", (4, 8))
    monkeypatch.setattr("prunus.compiler.blocks.CHANNELS", (1, 4))
    pytest.importorskip("matplotlib")
    words = ["explore", "model.onnx", "--blocks", "punched", "--plot", "blocks.svg", "--json", "blocks.json"]
    assert run(words) == DONE, capsys.readouterr().err
    shown = json.loads((folder / "blocks.json").read_text())
    assert {row["scheme"] for row in shown["rows"]} == {f"punched:{f}x{c}" for f in (4, 8) for c in (1, 4)}
    assert {row["sparsity"] for row in shown["rows"]} == {0.9}  # the last of the default ones
    for choice in shown["choices"]:
        assert choice["scheme"] is None or choice["ms"] <= choice["best_ms"] * 1.1 + 1e-12
        assert choice["layer"] in capsys.readouterr().out + (folder / "blocks.svg").read_text()
    picture = (folder / "blocks.svg").read_bytes()
    assert picture.startswith(b"<?xml")


def test_explore_plot(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A heat map that names layers, schemes and sparsities, the same bytes for the same times."""
    pytest.importorskip("matplotlib")
    words = ["explore", "model.onnx", "--schemes", "filter,pattern:4", "--sparsities", "0.9", "--plot", "heat.svg"]
    assert run(words) == DONE, capsys.readouterr().err
    drawn = (folder / "heat.svg").read_text()
    assert drawn.startswith("<?xml") and "filter 0.9" in drawn and "pattern:4 0.9" in drawn
    rows = [ExploreRow("a", (4, 4), 2, "filter", 0.9, 0.9, ms, 1.0) for ms in (0.5, None)]
    pictures = []
    for name in ("one.svg", "two.svg"):
        heat_map(folder / name, rows, "net")
        pictures.append((folder / name).read_bytes())
    assert pictures[0] == pictures[1] and b"a (2)" in pictures[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--blocks", "filter"], "'filter': expected one of bcr"),
        (["--blocks", "bcr", "--plot", "x.pdf"], "--plot x.pdf: expected a name in .svg or .png"),
        (["--plot", "x.pdf"], "--plot x.pdf: expected a name in .svg or .png"),
    ],
)
def test_explore_blocks_refuses(words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explore", "model.onnx", *words]) == BAD_INPUT
    assert said in capsys.readouterr().err
