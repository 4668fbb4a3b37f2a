"""Quick evaluations: what they leave alone, what they depend on, and that they tell mappings apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunus.errors import TrainingError
from prunus.mapping.evaluate import Effort, Evaluator, rules_of
from prunus.mapping.space import LayerSpace, Option, Space
from prunus.pruning.images import Scaling
from prunus.training.data import Samples
from tests.training import toy

EFFORT = Effort(steps=6, batch_size=32, held_out=90)
OPTIONS = (Option(None, 0.0, 1.0), Option("unstructured", 0.5, 0.6), Option("unstructured", 0.98, 0.1))


def samples(n: int = 300) -> Samples:
    made = toy.samples(n, 0)
    return Samples((made["x"], made["y"]), "toy", Scaling((0.0,), (1.0,), False), (1, 8, 8))


def space(*names: str) -> Space:
    shapes = {"0": (16, 1, 3, 3), "5": (32, 16, 3, 3)}
    return Space(tuple(LayerSpace(f"/{n}/Conv", f"{n}.weight", "conv", shapes[n], 100, OPTIONS) for n in names), 0.0)


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """Trained for some steps; a depthwise convolution in the middle."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip
    optimizer, rest = torch.optim.Adam(model.parameters(), 1e-2), samples(600)
    for step in range(40):
        x, y = rest.take(range(step * 15, step * 15 + 15))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def test_the_same_at_any_time_and_the_model_is_left_alone(network: nn.Sequential) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = Evaluator(network, space("0", "5"), samples(), EFFORT)
    torch.manual_seed(1)
    second = Evaluator(network, space("0", "5"), samples(), EFFORT)
    assert second((1, 2)) == first((1, 2))
    assert all(before[name].equal(tensor) for name, tensor in network.state_dict().items())
    assert first((0, 0)) > first((2, 2)) + 0.1


def test_dense_is_the_network_as_it_is(network: nn.Sequential) -> None:
    evaluator = Evaluator(network, space("0", "5"), samples(), EFFORT)
    x, y = evaluator.held.take(range(len(evaluator.held)))
    with torch.no_grad():
        assert evaluator((0, 0)) == pytest.approx(float((network(x).argmax(1) == y).double().mean()))
    assert len(evaluator.held) == 90
    assert len(evaluator.rest) == 210


def test_retraining_helps(network: nn.Sequential) -> None:
    effort = replace(EFFORT, steps=60)
    assert (
        Evaluator(network, space("0", "5"), samples(), effort)((2, 2))
        > Evaluator(network, space("0", "5"), samples(), replace(effort, steps=0))((2, 2)) + 0.05
    )


def test_held_out_samples_are_not_trained_on(network: nn.Sequential) -> None:
    """None of them is among the rest, for all samples differ."""
    evaluator = Evaluator(network, space("0"), samples(50), Effort(held_out=1000))
    held, rest = (part.take(range(len(part)))[0].flatten(1) for part in (evaluator.held, evaluator.rest))
    assert (len(held), len(rest)) == (16, 34)
    assert float(torch.cdist(held, rest).min()) > 0.1
    assert [len(evaluator._batch(step)) for step in (0, 5)] == [34, 34]


def test_what_was_evaluated_is_known(network: nn.Sequential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process too; other effort, data or weights are evaluated anew."""
    path = tmp_path / "kept.jsonl"
    found = Evaluator(network, space("0"), samples(), EFFORT, path)((2,))
    monkeypatch.setattr(Evaluator, "_evaluate", lambda self, mapping: -1.0)
    assert Evaluator(network, space("0"), samples(), EFFORT, path)((2,)) == found
    faster = Space(tuple(replace(layer, options=OPTIONS[::-1]) for layer in space("0").layers), 0.0)
    assert Evaluator(network, faster, samples(), EFFORT, path)((0,)) == found  # by what it is, not by its index
    assert Evaluator(network, space("0"), samples(), replace(EFFORT, seed=1), path)((2,)) == -1.0
    assert Evaluator(network, space("0"), samples(299), EFFORT, path)((2,)) == -1.0
    other = nn.Sequential(*network)
    other[8] = nn.Linear(128, 4)
    assert Evaluator(other, space("0"), samples(), EFFORT, path)((2,)) == -1.0


def test_too_few_samples(network: nn.Sequential) -> None:
    with pytest.raises(TrainingError, match="toy: 2 samples"):
        Evaluator(network, space("0"), samples(2), EFFORT)


def test_rules_of_a_mapping() -> None:
    assert rules_of(space("0", "5"), (0, 2), [("0.weight",), ("5.weight",)]) == [
        {"match": "0.weight", "skip": True}, {"match": "5.weight", "scheme": "unstructured", "sparsity": 0.98},
    ]  # fmt: skip


def test_parts_of_samples() -> None:
    made = toy.samples(10, 0)
    part = samples(10).part([7, 2])
    assert part.take([1, 0])[1].tolist() == [made["y"][2], made["y"][7]]
    assert np.array_equal(part.take([0])[0][0].numpy(), made["x"][7])
    assert part.classes == samples(10).classes
