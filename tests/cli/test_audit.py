"""prunus audit: what it prints and writes, its exit codes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.audit.victims import Victim
from prunus.cli.audit import distinct, parse_number, parse_range
from prunus.cli.main import BAD_INPUT, DONE, INTERRUPTED, NO, run
from prunus.training.export import export_onnx
from tests.audit.toy import Backdoored, trained, write_npz


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plain.onnx, weak.onnx with a weakness planted, small.prunus of the first, data.npz."""
    import prunus

    folder = tmp_path_factory.mktemp("audit")
    plain = trained()
    for name, network in (("plain", plain), ("weak", Backdoored(plain, 60.0))):
        export_onnx(network, folder / f"{name}.onnx", torch.zeros(2, 1, 8, 8))
    prunus.compile(str(folder / "plain.onnx"), tune="off", threads=1).save(folder / "small.prunus")
    write_npz(folder / "data.npz", 80)
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for file in models.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


QUICK = ["--data", "data.npz", "--steps", "6", "--attacks", "pgd", "--threads", "1"]


def test_three_models_and_the_gate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["plain.onnx", "weak.onnx", "small.prunus"]
    command = ["audit", *names, *QUICK, "--eps", "8/100", "--target", "0", "--queries", "2000", "--json", "a.json"]
    assert run([*command, "--gate", "0.15", "--perturbations", "d.npz"]) == NO
    printed = capsys.readouterr().out
    assert "over the gate of 0.15: weak.onnx" in printed and "transfer at 0.08" in printed
    found = json.loads((folder / "a.json").read_text())
    assert [m["name"] for m in found["models"]] == names and found["passes"] is False
    assert [m["passes"] for m in found["models"]] == [True, False, True]
    assert found["models"][2]["how"] == "queries" and found["models"][2]["images"] > 500
    page = (folder / "audit.html").read_text()
    assert all(name in page for name in names) and "Over the gate of 15% at eps 0.08: weak.onnx" in page
    with np.load("d.npz") as arrays:
        assert set(arrays.files) == set(names) and 0.04 < np.abs(arrays["weak.onnx"]).max() <= 0.080001
    assert run([*command, "--gate", "1", "-q"]) == DONE
    assert json.loads((folder / "a.json").read_text())["passes"] is True


def test_json_alone_on_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "plain.onnx", *QUICK, "--eps", "0.1", "--json", "-", "-o", "r.html"]) == DONE
    assert json.loads(capsys.readouterr().out)["output"] == "r.html"


def test_onnx_by_queries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "audit",
        "plain.onnx",
        *QUICK,
        "--eps",
        "0.2",
        "--black-box",
        "--queries",
        "2000",
        "--json",
        "a.json",
        "-q",
    ]
    assert run(command) == DONE
    model = json.loads((folder / "a.json").read_text())["models"][0]
    assert (model["how"], model["gradients"]) == ("queries", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plain.onnx", "--eps", "big"], "--eps 'big': expected a number or a fraction"),
        (["plain.onnx", "--eps", "1/0"], "--eps '1/0'"),
        (["plain.onnx", "--eps", "inf"], "eps inf: expected a finite number"),
        (["plain.onnx", "--eps", "1" + "0" * 400 + "/1"], "--eps '1"),
        (["plain.onnx", "--eps", "0.1", "--range", "0,inf"], "range 0,inf: expected finite"),
        (["plain.onnx", "--eps", "0.1", "--seed", str(10**20)], "--seed"),
        (["plain.onnx", "--eps", "0.1", "--attacks", "pgd,deepfool", "--target", "1"], "error: deepfool has no target"),
        (["plain.onnx", "--eps", "-1"], "eps -1: expected a finite number above 0"),
        (["plain.onnx", "--eps", "0.1", "--range", "1,0"], "range 1,0"),
        (["plain.onnx", "--eps", "0.1", "--range", "1"], "--range '1': expected LO,HI"),
        (["plain.onnx", "--eps", "0.1", "--norm", "l3"], "--norm 'l3'"),
        (["plain.onnx", "--eps", "0.1", "--shots", "30"], "class 0 has 20 images, expected 61"),
        (["plain.onnx", "--eps", "0.1", "--attacks", "luck"], "attack 'luck'"),
        (["plain.onnx", "--eps", "0.1", "--target", "9"], "target 9: expected a class, 0 to 3"),
        (["plain.onnx", "--eps", "0.1", "--optimiser", "none.st"], "none.st: no such file"),
        (["plain.onnx", "plain.onnx", "--eps", "0.1"], "plain.onnx: given twice"),
        (["none.onnx", "--eps", "0.1"], "none.onnx"),
        (["plain.onnx", "--eps", "0.1", "--data", "none.npz"], "none.npz: No such file"),
        (["plain.onnx", "--eps", "0.1", "--data", "nothing"], "nothing: no such folder"),
        (["plain.onnx", "--eps", "0.1", "-o", "no/such/a.html"], "no/such/a.html"),
    ],
)
def test_refused(arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *QUICK, *arguments, "-q"]) == BAD_INPUT
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines


def test_files_of_one_name_are_told_apart(folder: Path) -> None:
    for name in ("plain", "weak"):
        (folder / name).mkdir()
        (folder / name / "model.onnx").symlink_to((folder / f"{name}.onnx").resolve())
    command = ["audit", "plain/model.onnx", "weak/model.onnx", *QUICK, "--eps", "0.1", "--json", "a.json", "-q"]
    assert run([*command, "--perturbations", "d.npz"]) == DONE
    names = ["plain/model.onnx", "weak/model.onnx"]
    assert [m["name"] for m in json.loads((folder / "a.json").read_text())["models"]] == names
    with np.load("d.npz") as arrays:
        assert set(arrays.files) == set(names)
    assert distinct([Path("a.onnx"), Path("./a.onnx"), Path("b.onnx")]) == ["a.onnx", "a.onnx", "b.onnx"]


@pytest.mark.parametrize("option", ["-o", "--json", "--perturbations"])
def test_where_nothing_can_be_written_nothing_is_done(option: str, folder: Path) -> None:
    assert run(["audit", "plain.onnx", *QUICK, "--eps", "0.1", "-q", option, "no/such"]) == BAD_INPUT
    assert not (folder / "audit.html").exists()


@pytest.mark.parametrize("where", ["a.json", "-"])
def test_stopped_by_the_user(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classify = Victim.classify

    def stopping(victim: Victim, x: torch.Tensor) -> torch.Tensor:
        if victim.name == "weak.onnx":
            raise KeyboardInterrupt
        return classify(victim, x)

    monkeypatch.setattr(Victim, "classify", stopping)
    command = ["audit", "plain.onnx", "weak.onnx", *QUICK, "--eps", "0.01", "--gate", "1", "--json", where, "-q"]
    assert run(command) == INTERRUPTED
    text = capsys.readouterr().out if where == "-" else Path(where).read_text()
    found = json.loads(text)
    assert [m["name"] for m in found["models"]] == ["plain.onnx"]
    assert found["passes"] is False and found["failure"] == "weak.onnx: not audited"
    assert "Ended early: weak.onnx: not audited" in Path("audit.html").read_text()


def test_data_outside_of_the_range(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load("data.npz") as arrays:
        np.savez("wide.npz", x=arrays["x"] - 0.5, y=arrays["y"])
    run(["audit", "plain.onnx", *QUICK, "--data", "wide.npz", "--eps", "0.1", "--json", "a.json", "-q"])
    said = capsys.readouterr().err
    assert "% of the values of the data aren't in the range 0,1" in said and said.count("\n") == 1
    assert "aren't in the range" in json.loads(Path("a.json").read_text())["notes"][0]


def test_numbers() -> None:
    assert parse_number("--eps", "8/255") == pytest.approx(8 / 255)
    assert parse_number("--eps", "0.03") == 0.03
    assert parse_range("-1,1") == (-1.0, 1.0)
