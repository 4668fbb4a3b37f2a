"""Distillation: what is trained, in which order, and a loss that isn't finite."""

import copy

import pytest
import torch

from prunus.errors import TrainingError
from prunus.training.reconstruct.distil import distil, mixed
from tests.training.reconstruct.networks import Small, inputs

BATCHES = [(inputs(4, 8, 9, 9, seed=seed),) for seed in range(3)]


def test_only_what_is_named_is_trained() -> None:
    dense = Small()
    model = copy.deepcopy(dense)
    model.point.weight.data *= 0.9
    mask = torch.rand(model.second.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    model.second.weight.data *= mask
    learned = {name: model.get_parameter(name) for name in ("second.weight", "point.bias")}
    losses: list[float] = []
    distil(
        model, dense, {"second.weight": mask.numpy()}, learned, BATCHES, 8, rate=0.01, seed=0,
        report=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, dense.get_parameter(name))}
    assert changed == {"second.weight", "point.bias", "point.weight"}
    assert torch.equal(model.point.weight, dense.point.weight * 0.9)
    assert torch.equal(model.second.weight != 0, mask)
    assert losses[-1] < 0.9 * losses[0]


def test_a_loss_that_is_not_finite_stops_it() -> None:
    model = Small()
    with pytest.raises(TrainingError, match="epoch 0"):
        distil(
            model, Small(1), {}, dict(model.named_parameters()), [(torch.full((2, 8, 9, 9), torch.inf),)], 1,
            rate=0.01, seed=0,
        )  # fmt: skip
    assert all(p.requires_grad for p in model.parameters())


def test_batches_are_mixed_and_each_sample_comes_once() -> None:
    batches = [(torch.arange(4.0)[:, None], torch.arange(4)), (torch.arange(4.0, 7)[:, None], torch.arange(4, 7))]
    made = list(mixed(batches, torch.Generator().manual_seed(0)))
    assert [len(x) for x, _ in made] == [4, 3]
    assert all(torch.equal(x[:, 0].long(), y) for x, y in made)
    drawn = torch.cat([y for _, y in made])
    assert sorted(drawn.tolist()) == list(range(7))
    assert drawn.tolist() != list(range(7))


def test_samples_of_several_shapes_stay_in_their_batches() -> None:
    batches = [(torch.ones(2, size),) for size in (3, 4, 5)]
    made = list(mixed(batches, torch.Generator().manual_seed(1)))
    assert sorted(x.shape[1] for (x,) in made) == [3, 4, 5]


def test_images_keep_their_memory_format() -> None:
    x = torch.rand(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    ((made,),) = mixed([(x,)], torch.Generator().manual_seed(0))
    assert made.is_contiguous(memory_format=torch.channels_last)
