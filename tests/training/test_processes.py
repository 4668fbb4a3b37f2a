"""Two processes make of a recipe what one makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training import ranks
from tests.training.toy import write_toy

ROOT = Path(__file__).parents[2]


def launch(n: int, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start n processes that only talk to each other."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src"), environment.get("PYTHONPATH", "")])
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(n), *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what two processes made of each way and method."""
    folder = tmp_path_factory.mktemp("ranks")
    done = launch(2, [str(ROOT / "tests/training/ranks.py"), str(folder)], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ranks.METHODS)
@pytest.mark.parametrize("how", ranks.HOW)
def test_shards_and_copies_get_the_same_masks(how: str, method: str, folder: Path) -> None:
    alone = ranks.train("plain", method, 0, 1)
    both = [np.load(folder / f"{how}-{method}-{rank}.npz") for rank in range(2)]
    for name, expected in alone.items():
        np.testing.assert_array_equal(both[0][name], both[1][name])
        if name.startswith("mask"):
            np.testing.assert_array_equal(both[0][name], expected, err_msg=name)
            assert not both[0][name.replace("mask", "weight")][~expected].any()
        else:
            np.testing.assert_allclose(both[0][name], expected, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_prunus_train_on_two_processes_is_that_on_one(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path, optimizer={"name": "sgd", "rate": 0.05}, method="admm", dense={"epochs": 2})
    recipe["model"]["arguments"] = {"norm": False}
    recipe["data"]["augment"] = {"shift": 1, "flip": True}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    for n in (1, 2):
        done = launch(n, ["-m", "prunus", "train", "recipe.yaml", "-o", f"out{n}", "--threads", "1"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"out{n}/sparse.onnx") == 1, done.stdout
        assert done.stderr.count("epoch 1 of 4") == 1, done.stderr
    one, two = (load_file(tmp_path / f"out{n}/model.safetensors") for n in (1, 2))
    for name in one:
        assert torch.equal(one[name] == 0, two[name] == 0), name
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-5)
    one_report, two_report = (json.loads((tmp_path / f"out{n}/report.json").read_text()) for n in (1, 2))
    assert one_report["layers"] == two_report["layers"]
    assert one_report["scores"]["recovered"]["accuracy"] == two_report["scores"]["recovered"]["accuracy"]


@pytest.mark.slow
def test_what_stops_two_processes_is_said_once(tmp_path: Path) -> None:
    recipe = write_toy(tmp_path)
    recipe["data"]["batch_size"] = 33
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = launch(2, ["-m", "prunus", "train", "recipe.yaml", "-o", "out"], tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("error: data.batch_size 33: expected a multiple of the 2 processes") == 1
