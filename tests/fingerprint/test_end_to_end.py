"""The whole way: make, commit, prune, quantise, verify; and three independent networks that aren't claimed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import prunus
from prunus.cli.main import DONE, NO, run
from prunus.demo.data import Images, load_images
from prunus.errors import MissingExtraError
from prunus.training.export import export_onnx
from tests.fingerprint.server import METADATA, Served, serving

pytestmark = pytest.mark.slow
PIXELS = ["--mean", "33", "--std", "77", "--threads", "1"]


def trained(images: Images, seed: int, width: int = 16, kernel: int = 3) -> nn.Module:
    x, y = torch.from_numpy(images.train_x[:3000]), torch.from_numpy(images.train_y[:3000])
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, width, kernel, 2, kernel // 2), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An owner's network, one pruned and one quantised from it, and five that aren't."""
    try:
        images = load_images("mnist")
    except MissingExtraError as error:
        pytest.skip(str(error))
    made, few = tmp_path_factory.mktemp("family"), torch.from_numpy(images.train_x[:2])
    owner = made / "model.onnx"
    export_onnx(trained(images, 0), owner, few)
    pruned = prunus.prune_onnx(str(owner), scheme="bcr:8x64", sparsity=0.5)
    (made / "pruned.onnx").write_bytes(pruned.SerializeToString())
    feeds = [{"x": images.train_x[i : i + 64]} for i in range(0, 256, 64)]
    prunus.compile(owner, precision="int8", calibration=feeds, threads=1, tune="off").save(made / "int8.prunus")
    others = (("null1", 1, 16, 3), ("null2", 5, 16, 3), ("a", 2, 16, 3), ("b", 3, 12, 5), ("c", 4, 24, 3))
    for name, seed, width, kernel in others:
        export_onnx(trained(images, seed, width, kernel), made / f"{name}.onnx", few)
    return made


def test_shows_descendants_and_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["make", "model.onnx", "-o", "owner.fp", "--null", "null1.onnx", "--null", "null2.onnx", *PIXELS]
    assert run(["fingerprint", *words, "--json", "made.json"]) == DONE, capsys.readouterr().err
    made = json.loads(Path("made.json").read_text())
    assert made["own"] == 100 and made["null"][0]["name"] == "null1.onnx"
    assert f"{made['null'][0]['matches']} of 100" in capsys.readouterr().out
    assert not list(folder.glob("*.part"))

    assert run(["fingerprint", "commit", "owner.fp", "-o", "owner.json"]) == DONE
    for suspect in ("model.onnx", "pruned.onnx", "int8.prunus"):
        words = ["verify", "owner.fp", "--suspect", suspect, "--commitment", "owner.json", "--json", "v.json"]
        assert run(["fingerprint", *words]) == DONE, (suspect, capsys.readouterr())
        evidence = json.loads(Path("v.json").read_text())["evidence"][0]
        assert evidence["p"] < 1e-3 and evidence["verdict"] == "shown" and evidence["matches"] >= evidence["needed"]
    for suspect in ("a.onnx", "b.onnx", "c.onnx"):
        assert run(["fingerprint", "verify", "owner.fp", "--suspect", suspect, "-q"]) == NO, suspect
    assert run(["fingerprint", "verify", "owner.fp", "--suspect", "pruned.onnx", "--suspect", "a.onnx", "-q"]) == NO
    capsys.readouterr()

    session = prunus.load("int8.prunus", threads=1)
    port = {"name": "x", "datatype": "FP32", "shape": [-1, 1, 28, 28]}
    with serving(Served(lambda x: session.run(None, {"x": x})[0], {**METADATA, "inputs": [port]})) as served:
        assert run(["fingerprint", "verify", "owner.fp", "--suspect", served.url]) == DONE
    assert "nothing says that the examples are older" in capsys.readouterr().out


def test_a_claim_made_up_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thief's examples of somebody else's network are matched by it; but the commitment is younger than it."""
    monkeypatch.chdir(folder)
    assert run(["fingerprint", "make", "a.onnx", "-o", "thief.fp", *PIXELS, "-q"]) == DONE
    assert run(["fingerprint", "commit", "thief.fp", "-o", "thief.json", "-q"]) == DONE
    words = ["fingerprint", "verify", "thief.fp", "--suspect", "a.onnx", "-q"]
    assert run(words) == DONE
    assert run([*words, "--commitment", "thief.json", "--seen", "2024-01-01"]) == 2
    assert "thief.json: time: found 20" in capsys.readouterr().err
