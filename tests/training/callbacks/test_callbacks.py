"""Callbacks do in a framework's loop what the Pruner's three calls do in one's own.

The frameworks are stood in for by the order in which they call, as read in transformers 5.24 and Lightning 2.6.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunus.errors import TrainingError
from prunus.training.pruner import Pruner
from tests.training.toy import samples

METHODS = ("one-shot", "admm", "reweighted", "gradual")
PER_EPOCH, EPOCHS = 4, 3


def recipe(method: str) -> dict[str, Any]:
    return {
        "method": method,
        "epochs": {"sparsify": 2, "recover": 1},
        "layers": [{"match": "2", "scheme": "unstructured", "sparsity": 0.75}],
    }


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.Flatten(), nn.Linear(32, 4))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    data = samples(PER_EPOCH * 16, 0)
    for start in range(0, PER_EPOCH * 16, 16):
        yield torch.from_numpy(data["x"][start : start + 16]), torch.from_numpy(data["y"][start : start + 16])


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def own_loop(method: str) -> nn.Module:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    pruner = Pruner(model, recipe(method), steps_per_epoch=PER_EPOCH)
    for _ in range(EPOCHS):
        for x, y in batches():
            optimizer.zero_grad()
            (loss_of(model, x, y) + pruner.penalty()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pruner.step()
    pruner.finalize()
    return model


def load(name: str, fakes: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    for key, fake in fakes.items():
        monkeypatch.setitem(sys.modules, key, fake)
    monkeypatch.delitem(sys.modules, f"prunus.training.callbacks.{name}", raising=False)
    module = importlib.import_module(f"prunus.training.callbacks.{name}")
    monkeypatch.delitem(sys.modules, f"prunus.training.callbacks.{name}")  # it is of the stand-in
    return module.PruneCallback


def fake(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


def transformers_loop(make: Callable[[], Any], folder: Path, save_at: int, max_steps: int = -1) -> nn.Module:
    """With a checkpoint, from which a second Trainer goes on. max_steps: as in its arguments, whose epochs then are
    the default ones."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    epochs = 7.0 if max_steps > 0 else float(EPOCHS)
    args = SimpleNamespace(output_dir=str(folder), num_train_epochs=epochs, max_steps=max_steps)
    state = SimpleNamespace(
        global_step=0, max_steps=EPOCHS * PER_EPOCH, is_world_process_zero=True, num_train_epochs=EPOCHS
    )
    callback = make()
    callback.on_train_begin(args, state, None, model=model, optimizer=optimizer)
    for _ in range(EPOCHS):
        for x, y in batches():
            loss_of(model, x, y).backward()  # type: ignore[no-untyped-call]
            callback.on_pre_optimizer_step(args, state, None, model=model)
            optimizer.step()
            callback.on_optimizer_step(args, state, None, model=model)
            model.zero_grad()
            state.global_step += 1
            if state.global_step == save_at:
                (folder / f"checkpoint-{save_at}").mkdir()
                callback.on_save(args, state, None, model=model)
                callback = make()
                callback.on_train_begin(args, state, None, model=model)
    callback.on_train_end(args, state, None, model=model)
    assert callback.follower.report.sparsity == 0.75
    return model


def lightning_loop(make: Callable[[], Any], save_at: int, halves: int) -> nn.Module:
    """The same, each batch in so many parts whose gradients are summed up."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    trainer = SimpleNamespace(global_step=0, num_training_batches=PER_EPOCH * halves, accumulate_grad_batches=halves)
    callback = make()
    callback.on_train_start(trainer, model)
    for _ in range(EPOCHS):
        parts = [(a, b) for x, y in batches() for a, b in zip(x.chunk(halves), y.chunk(halves), strict=True)]
        for number, (x, y) in enumerate(parts):
            if number % halves == 0:
                optimizer.zero_grad()
            (loss_of(model, x, y) / halves).backward()  # type: ignore[no-untyped-call]
            if number % halves == halves - 1:
                callback.on_before_optimizer_step(trainer, model, optimizer)
                optimizer.step()
                trainer.global_step += 1
            callback.on_train_batch_end(trainer, model, None, (x, y), number)
            if trainer.global_step == save_at and number % halves == halves - 1:
                state = callback.state_dict()
                callback = make()
                callback.load_state_dict(state)
                callback.on_train_start(trainer, model)
    callback.on_train_end(trainer, model)
    return model


def assert_alike(model: nn.Module, expected: nn.Module) -> None:
    for (name, got), wanted in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(got == 0, wanted == 0), name
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_transformers(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load("transformers", {"transformers": fake("transformers", TrainerCallback=object)}, monkeypatch)
    assert_alike(transformers_loop(lambda: kind(recipe(method)), tmp_path, 5), own_loop(method))


def test_a_transformers_trainer_that_counts_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load("transformers", {"transformers": fake("transformers", TrainerCallback=object)}, monkeypatch)
    model = transformers_loop(lambda: kind(recipe("gradual")), tmp_path, 5, max_steps=EPOCHS * PER_EPOCH)
    assert_alike(model, own_loop("gradual"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("halves", [1, 2])
def test_lightning(method: str, halves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = fake("lightning")
    kind = load("lightning", {"lightning": parent, "lightning.pytorch": fake("x", Callback=object)}, monkeypatch)
    assert_alike(lightning_loop(lambda: kind(recipe(method)), 6, halves), own_loop(method))


def test_a_loader_without_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = fake("lightning")
    kind = load("lightning", {"lightning": parent, "lightning.pytorch": fake("x", Callback=object)}, monkeypatch)
    trainer = SimpleNamespace(global_step=0, num_training_batches=float("inf"), accumulate_grad_batches=1)
    with pytest.raises(TrainingError, match="limit_train_batches"):
        kind(recipe("admm")).on_train_start(trainer, network())


def test_writes_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load("transformers", {"transformers": fake("transformers", TrainerCallback=object)}, monkeypatch)
    path = tmp_path / "sparse.onnx"
    transformers_loop(lambda: kind(recipe("one-shot"), path, torch.zeros(1, 1, 8, 8)), tmp_path, 5)
    assert path.stat().st_size


def test_real_ones_are_what_the_stand_ins_are() -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    from prunus.training.callbacks.transformers import PruneCallback

    for name in ("on_train_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_save", "on_train_end"):
        assert hasattr(transformers.TrainerCallback, name)
    assert isinstance(PruneCallback(recipe("admm")), transformers.TrainerCallback)


def test_real_lightning_is_what_the_stand_in_is() -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="pip install pytorch-lightning")
    from prunus.training.callbacks.lightning import PruneCallback

    for name in ("on_train_start", "on_before_optimizer_step", "on_train_batch_end", "on_train_end"):
        assert hasattr(lightning.Callback, name)
    assert PruneCallback(recipe("admm")).state_dict() == {}
