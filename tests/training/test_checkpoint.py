"""Checkpoints: what is written is read, damage is passed over, strangers are refused."""

from pathlib import Path

import pytest
import torch

from prunus.errors import CheckpointError, OutputError, PrunusWarning
from prunus.training import checkpoint
from prunus.training.checkpoint import Checkpoint
from prunus.training.recipe import load_recipe
from prunus.training.state import describe

RECIPE = load_recipe({"layers": [{"match": "re:.", "scheme": "filter", "sparsity": 0.5}]})
WHO = describe({"a": [[2, 3]], "b": [[4]]}, RECIPE, 7)


def make(step: int) -> Checkpoint:
    tensors = {
        "model/a": torch.full((2, 3), float(step)),
        "model/n": torch.tensor(step),
        "pruner/m": torch.ones(3, dtype=torch.uint8),
    }
    return Checkpoint(step, tensors, {"scores": {"dense": [1.0, None, 3]}})


def test_the_newest_is_read_and_two_are_kept(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, WHO) is None
    assert checkpoint.last_step(tmp_path) is None
    for step in (2, 4, 10):
        checkpoint.write(tmp_path, make(step), WHO)
    assert len(list(tmp_path.iterdir())) == 2
    found = checkpoint.newest(tmp_path, WHO)
    assert found is not None and (found.step, found.said) == (10, make(10).said)
    assert found.part("model").keys() == {"a", "n"}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in make(10).tensors.items())
    checkpoint.clear(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_is_passed_over(damage: str, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.write(tmp_path, make(step), WHO)
    newest, older = sorted(tmp_path.iterdir(), reverse=True)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes({"cut": content[:-9], "flip": content, "empty": b""}[damage])
    with pytest.warns(PrunusWarning, match=rf"{newest.name}: damaged checkpoint.*going on from {older.name}"):
        found = checkpoint.newest(tmp_path, WHO)
    assert found is not None and found.step == 1
    older.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"damaged checkpoint.*--fresh"):
        checkpoint.newest(tmp_path, WHO)


def test_another_model_is_refused_by_hash_and_name(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, make(1), WHO)
    for layers, words in (
        ({"a": [[2, 3]], "c": [[4]]}, "no layer c there, but b"),
        ({"a": [[2, 4]], "b": [[4]]}, r"a is \[\[2, 3\]\], expected \[\[2, 4\]\]"),
        ({"a": [[2, 3]]}, "layer b there, none here"),
    ):
        with pytest.raises(CheckpointError, match=rf"checkpoint-0+1.*another model.*{words}.*sha256 \w+, expected \w+"):
            checkpoint.newest(tmp_path, describe(layers, RECIPE, 7))
    with pytest.raises(CheckpointError, match="7 steps per epoch, expected 8"):
        checkpoint.newest(tmp_path, describe({"a": [[2, 3]], "b": [[4]]}, RECIPE, 8))


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        checkpoint.write(tmp_path / "none", make(1), WHO)
    assert not list(tmp_path.iterdir())
