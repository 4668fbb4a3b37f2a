"""Recurrent networks: exported as torch computes them at any length and batch, read without a partition, pruned gate by
gate."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import prunus
from prunus.graph.evaluate import evaluate
from prunus.graph.read import read
from prunus.pruning.one_shot import prune_layers
from prunus.sparsity.scheme import parse
from prunus.sparsity.stacked import check_stacked
from prunus.training import sequences
from prunus.training.export import export_onnx
from prunus.training.layers import find_layers
from prunus.training.methods import METHODS
from prunus.training.pruner import Pruner
from tests.runtime.networks import onnxruntime_run

KINDS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
GATES = {"gru": 3, "lstm": 4, "rnn": 1}


class Stack(nn.Module):
    """A recurrent layer, with states fed flat where they are fed, and all outputs flat."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = KINDS[kind](6, 5, **options)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        given = states if isinstance(self.layer, nn.LSTM) else next(iter(states), None)
        y, last = self.layer(x, given or None) if isinstance(given, tuple) else self.layer(x, given)
        return (y, *last) if isinstance(last, tuple) else (y, last)

    def inputs(self, steps: int, batch: int, states: bool) -> tuple[Tensor, ...]:
        layer = self.layer
        shape = (batch, steps, 6) if layer.batch_first else (steps, batch, 6)
        state = (layer.num_layers * (1 + layer.bidirectional), batch, 5)
        n_states = states * (1 + isinstance(layer, nn.LSTM))
        return (torch.randn(shape), *(torch.randn(state) for _ in range(n_states)))


class Words(nn.Module):
    """Embedded words, two directions, a classifier of the last step: the first thing that people build."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.words, self.layer = nn.Embedding(20, 8), nn.GRU(8, 6, 2, batch_first=True, bidirectional=True)
        self.classes = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classes(self.layer(self.words(x))[0][:, -1])
        return y


MATRIX = [
    (kind, 1 + index % 3, *rest) for index, (kind, *rest) in enumerate(itertools.product(KINDS, *[(False, True)] * 3))
]
ALL = [c for c in itertools.product(KINDS, (1, 2, 3), *[(False, True)] * 3) if c not in MATRIX]


def feeds_of(tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {f"x{i or ''}": tensor.numpy() for i, tensor in enumerate(tensors)}


@pytest.mark.parametrize(
    ("kind", "layers", "both", "batch_first", "states"),
    [*MATRIX, *(pytest.param(*c, marks=pytest.mark.slow) for c in ALL)],
)
def test_any_length_and_batch(
    kind: str, layers: int, both: bool, batch_first: bool, states: bool, tmp_path: Path
) -> None:
    """torch's gates, the reset, directions and states, in the file and in our reading of it."""
    model = Stack(kind, num_layers=layers, bidirectional=both, batch_first=batch_first)
    export_onnx(model, tmp_path / "m.onnx", model.inputs(4, 2, states))
    proto = onnx.load(tmp_path / "m.onnx")
    free = [[dim.dim_param for dim in port.type.tensor_type.shape.dim] for port in proto.graph.input]
    assert free[0] == (["batch", "time", ""] if batch_first else ["time", "batch", ""])
    assert free[1:] == [["", "batch", ""]] * (len(free) - 1) and bool(free[1:]) == states
    for steps, batch in ((9, 1), (1, 3)):
        inputs = model.inputs(steps, batch, states)
        feeds = feeds_of(inputs)
        with torch.no_grad():
            expected = [value.numpy() for value in model(*inputs)]
        graph = read(proto, {name: a.shape for name, a in feeds.items()}, fallback=False)
        assert [node.op for node in graph.nodes].count("recurrent") == layers * (1 + both)
        values = evaluate(graph, feeds)
        for found in (onnxruntime_run(proto, feeds), [values[name] for name in graph.outputs]):
            for got, wanted in zip(found, expected, strict=True):
                np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(("batch", "most"), [(1, 6), (2, 6)])
def test_little_is_left_around_layers(batch: int, most: int, tmp_path: Path) -> None:
    """Two layers of two directions on [t, n, i]: a node per direction, and a concatenation per layer."""
    model = nn.Sequential(nn.GRU(6, 5, 2, bidirectional=True))
    model[0].forward = lambda x, f=model[0].forward: f(x)[0]  # type: ignore[method-assign]
    export_onnx(model, tmp_path / "m.onnx", torch.randn(4, batch, 6))
    graph = read(tmp_path / "m.onnx", {"x": (4, batch, 6)}, fallback=False)
    assert len(graph.nodes) <= most, [node.op for node in graph.nodes]


def test_words(tmp_path: Path) -> None:
    """Integers in; the last step is a slice."""
    model, x = Words().eval(), torch.randint(0, 20, (2, 5))
    export_onnx(model, tmp_path / "m.onnx", x)
    proto = onnx.load(tmp_path / "m.onnx")
    other = torch.randint(0, 20, (3, 8))
    (found,) = onnxruntime_run(proto, {"x": other.numpy()})
    np.testing.assert_allclose(found, model(other).detach().numpy(), atol=1e-6)
    ops = [node.op for node in read(proto, {"x": (3, 8)}).nodes]
    assert ops.count("onnxruntime") == 1 and ops.count("recurrent") == 4 and "slice" in ops


class Baked(nn.Module):
    """The number of steps is written into the file as it was when that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)[0]
        return y.sum(0) / float(len(x))


class Fixed(Baked):
    """Takes four steps only."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)[0]
        return y.reshape(4, -1, 5)[3]


@pytest.mark.parametrize("kind", [Baked, Fixed])
def test_sizes_that_are_baked_in_are_fixed(kind: type[nn.Module], tmp_path: Path) -> None:
    export_onnx(kind(), tmp_path / "m.onnx", torch.randn(4, 2, 6))
    (port,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert [dim.dim_param or dim.dim_value for dim in port.type.tensor_type.shape.dim] == [4, "batch", 6]


def test_only_recurrent_networks_are_tried_so() -> None:
    assert sequences.is_recurrent(Words()) and not sequences.is_recurrent(nn.Linear(3, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_known(kind: str) -> None:
    for layer in find_layers(Stack(kind, num_layers=2, bidirectional=True)):
        assert layer.n_gates == GATES[kind]


def test_gates_of_cells_and_projections_are_known() -> None:
    network = nn.ModuleList([nn.GRUCell(4, 6), nn.LSTMCell(4, 6), nn.RNNCell(4, 6), nn.LSTM(4, 6, proj_size=2)])
    found = {layer.parameter: layer.n_gates for layer in find_layers(network)}
    assert found["3.weight_hr_l0"] == 1
    assert [found[f"{i}.weight_hh"] for i in range(3)] == [3, 4, 1] and found["3.weight_hh_l0"] == 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", ["bcr:4x4", "block-column:4x8"])
def test_blocks_never_straddle_gates(method: str, scheme: str, tmp_path: Path) -> None:
    """10 rows a gate, 4 a block: each gate is pruned by itself, by every method, and the file says the same."""
    torch.manual_seed(0)
    model = nn.GRU(16, 10)
    recipe = {
        "version": 1, "method": method, "epochs": {"sparsify": 2, "recover": 1},
        "layers": [{"match": "re:.*", "scheme": scheme, "sparsity": 0.6}],
    }  # fmt: skip
    x = torch.randn(5, 3, 16)
    pruner = Pruner(model, recipe, example_inputs=x, steps_per_epoch=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(pruner.epochs * 4):
        loss = model(x)[0].square().mean() + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
    report = pruner.finalize()
    for layer in report.layers:
        weight = dict(model.named_parameters())[layer.weight].detach().numpy()
        assert not layer.note or layer.note.startswith("asked"), layer.note
        assert check_stacked(weight != 0, parse(scheme), 3) is None
        assert abs(layer.sparsity - 0.6) < 0.05
        for gate in np.split(weight, 3):
            assert abs((gate == 0).mean() - 0.6) < 0.05
    pruner.export(tmp_path / "m.onnx")
    for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 3:
            assert check_stacked(array[0] != 0, parse(scheme), 3) is None


def test_file_and_module_are_pruned_alike(tmp_path: Path) -> None:
    """One geometry: torch's gates are the file's in another order."""
    model = nn.GRU(16, 10)
    export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 3, 16))
    sparse = prune_layers(tmp_path / "m.onnx", "bcr:4x4", 0.6).model
    recipe = {"version": 1, "method": "one-shot", "epochs": {"sparsify": 0, "recover": 0},
              "layers": [{"match": "re:.*", "scheme": "bcr:4x4", "sparsity": 0.6}]}  # fmt: skip
    Pruner(model, recipe).finalize()
    arrays = [onnx.numpy_helper.to_array(t)[0] for t in sparse.graph.initializer if len(t.dims) == 3]
    for name, array in zip(("weight_ih_l0", "weight_hh_l0"), arrays, strict=True):
        r, z, n = getattr(model, name).detach().numpy().reshape(3, 10, -1)
        np.testing.assert_array_equal(array, np.concatenate([z, r, n]))


@pytest.mark.parametrize(("kind", "batch_first"), [("gru", True), ("lstm", False)])
def test_exported_files_compile_as_they_are(kind: str, batch_first: bool, tmp_path: Path) -> None:
    """Without shapes, though time and batch are free; then fed at any."""
    model = Stack(kind, batch_first=batch_first)
    export_onnx(model, tmp_path / "m.onnx", model.inputs(4, 2, True))
    session = prunus.compile(tmp_path / "m.onnx", tune="off", threads=1)
    for steps, batch in ((4, 2), (1, 1), (6, 3)):
        inputs = model.inputs(steps, batch, True)
        with torch.no_grad():
            expected = model(*inputs)
        for got, wanted in zip(session.run(None, feeds_of(inputs)), expected, strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), atol=1e-6)
