"""States are flat tensors, and say what they are of."""

import numpy as np
import pytest
import torch

from prunus.errors import CheckpointError
from prunus.training.layers import assign, find_layers
from prunus.training.recipe import load_recipe
from prunus.training.state import identity, pack, unpack
from tests.training.networks import cnn

RECIPE = {"method": "admm", "layers": [{"match": "re:^(3|15)$", "scheme": "bcr:8x16", "sparsity": 0.75}]}


def rules(match: str, sparsity: float = 0.75) -> dict[str, object]:
    return {"layers": [{"match": match, "scheme": "bcr:8x16", "sparsity": sparsity}]}


def identity_of(change: dict[str, object] | None = None, steps: int = 5) -> str:
    recipe = load_recipe({**RECIPE, **(change or {})})
    return identity(assign(find_layers(cnn()), recipe.layers)[0], recipe, steps)


def test_there_and_back() -> None:
    parts = {"masks": {"a.weight": torch.tensor([1, 2])}, "method": {"": torch.tensor(3), "a.weight:u": torch.ones(2)}}
    state = pack(parts, (7, 0, 1, 0), "who")
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    found, counters = unpack(state, "who")
    assert counters == [7, 0, 1, 0] and set(found["method"]) == {"", "a.weight:u"} and found["scores"] == {}
    np.testing.assert_array_equal(found["masks"]["a.weight"].numpy(), [1, 2])
    parts["masks"]["a.weight"][0] = 9
    assert int(state["masks/a.weight"][0]) == 1, "a state is a copy"


@pytest.mark.parametrize(
    ("theirs", "facts"),
    [
        (identity_of({"epochs": {"recover": 9}}), ["another recipe", "epochs", "9"]),
        (identity_of({"method": "gradual"}), ["another recipe", "method", "gradual", "admm"]),
        (identity_of(rules("15")), ["no layer 3.weight", "15.weight", "sha256"]),
        (identity_of(rules("re:^(3|7|15)$")), ["7.weight there, none here"]),
        (identity_of(rules("re:^(3|15)$", 0.5)), ["15.weight", "0.5", "0.75"]),
        (identity_of(steps=6), ["6 steps per epoch", "expected 5"]),
        (identity_of().replace('"recipe": {', '"recipe": {"novel": 1, '), ["novel is 1", "None"]),
        ("{", ["can't be read"]),
        ("[]", ["can't be read"]),
        ("{}", ["can't be read"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(theirs: str, facts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        unpack(pack({}, (0, 0, 1, 0), theirs), identity_of())
    said = str(caught.value)
    assert "\n" not in said and [fact for fact in facts if fact not in said] == [], said


def test_what_is_no_state_at_all() -> None:
    with pytest.raises(CheckpointError, match="identity missing"):
        unpack(cnn().state_dict(), identity_of())
    state = pack({}, (0, 0, 1, 0), "x")
    state["identity"] = torch.tensor([255, 254], dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="can't be read"):
        unpack(state, identity_of())
