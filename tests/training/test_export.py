"""Exported files: the same answers, exact zeros, names, and nothing in place when something fails."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import prunus
from prunus.errors import ExportError
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner
from tests.training.networks import PRUNED, Recurrent, cnn, digits, sgd, train, trained

Arrays = dict[str, np.ndarray]


def run(path: Path, feeds: Arrays) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)  # type: ignore[no-any-return]


def names(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [item.name for item in graph.input], [item.name for item in graph.output]


def dims(path: Path) -> dict[str, list[str | int]]:
    graph = onnx.load(path).graph
    return {
        item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in [*graph.input, *graph.output]
    }


def assert_agree(path: Path, network: nn.Module, x: Tensor) -> None:
    """Torch, onnxruntime and the compiled network, to 1e-4 of the largest output."""
    network.eval()
    with torch.no_grad():
        wanted = network(x).numpy()
    bound = 1e-4 * np.abs(wanted).max()
    assert np.abs(run(path, {"x": x.numpy()})[0] - wanted).max() <= bound
    session = prunus.compile(str(path), threads=1, tune="off")
    assert np.abs(session.run(None, {"x": x.numpy()})[0] - wanted).max() <= bound


@pytest.mark.parametrize("text", ["bcr:8x16", "pattern:4", "2:4"])
def test_masked_exported_and_compiled_agree(text: str, tmp_path: Path) -> None:
    network, x = trained(), digits()[2]
    rule = {
        "match": PRUNED if text != "pattern:4" else "re:^(3|10)$",
        "scheme": text,
        "sparsity": None if text == "2:4" else 0.75,
    }
    pruner = Pruner(network, {"layers": [rule]}, example_inputs=x[:2])
    train(network, 5, sgd(network), pruner)
    report = pruner.finalize()
    network.train()
    network[1].eval()
    pruner.export(tmp_path / "sparse.onnx")
    assert network.training and not network[1].training and network[4].training
    assert_agree(tmp_path / "sparse.onnx", network, x[:5])
    assert dims(tmp_path / "sparse.onnx") == {"x": ["batch", 1, 8, 8], "y": ["batch", 10]}
    proto = onnx.load(tmp_path / "sparse.onnx")
    n_zeros = 0
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            assert not np.signbit(array[array == 0]).any(), f"{tensor.name} has negative zeros"
            n_zeros += int((array == 0).sum()) if array.ndim > 1 else 0
    assert n_zeros == sum(round(layer.sparsity * np.prod(layer.shape)) for layer in report.layers)
    said = {prop.key: prop.value for prop in proto.metadata_props}
    assert said["prunus.scheme"] == text and float(said["prunus.sparsity"]) == pytest.approx(report.sparsity, abs=1e-6)
    layers = json.loads(said["prunus.layers"])
    assert layers["3.weight"] == {
        "layer": "3",
        "scheme": text,
        "sparsity": pytest.approx(report.layers[1].sparsity, abs=1e-6),
    }
    assert layers["0.weight"]["scheme"] is None and layers["0.weight"]["note"] == "no rule"


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_networks(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    network, x = Recurrent(kind), digits()[2]
    rules = [{"match": "rnn", "scheme": "bcr:8x8", "sparsity": 0.75}]
    pruner = Pruner(network, {"layers": rules}, example_inputs=x[:2])
    train(network, 3, sgd(network), pruner)
    pruner.finalize()
    pruner.export(tmp_path / "sparse.onnx")
    assert_agree(tmp_path / "sparse.onnx", network, x[:5])


class Nested(nn.Module):
    """Takes and returns as it is told to."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.inner = way, nn.Linear(4, 3)

    def forward(self, first: Any, second: Any = None) -> Any:
        """Sums."""
        if isinstance(first, dict):
            first, second = first["image"], first["offset"]
        elif isinstance(first, tuple):
            first, second = first
        elif isinstance(second, tuple):
            second = second[0] + second[1]
        a = self.inner(first)
        b = a + second if second is not None else a * 2
        ways = {
            "tensor": b,
            "tuple": (a, b),
            "list": [a, b],
            "nested": (a, (b, a + b)),
            "dict": {"logits": a, "features": b},
        }
        return ways[self.way]


X = torch.arange(8.0).reshape(2, 4)
OFFSET = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("way", "inputs", "wanted"),
    [
        ("tensor", X, (["x"], ["y"])),
        ("tensor", (X,), (["x"], ["y"])),
        ("tuple", (X, OFFSET), (["x", "x1"], ["y", "y1"])),
        ("list", X, (["x"], ["y", "y1"])),
        ("nested", (X, (OFFSET, OFFSET)), (["x", "x1", "x2"], ["y", "y1", "y2"])),
        ("dict", ({"image": X, "offset": OFFSET},), (["image", "offset"], ["logits", "features"])),
        ("tensor", ((X, OFFSET),), (["x", "x1"], ["y"])),
    ],
)  # fmt: skip
def test_names_of_inputs_and_outputs(
    way: str, inputs: Any, wanted: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    network = Nested(way)
    export_onnx(network, tmp_path / "m.onnx", inputs)
    assert names(tmp_path / "m.onnx") == wanted
    assert {tensor.name for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer} >= {
        "inner.weight",
        "inner.bias",
    }
    assert all(shape[0] == "batch" for shape in dims(tmp_path / "m.onnx").values())


class States(nn.Module):
    """Returns all that an LSTM does: its states have the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 3, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        """(y, (h, c))."""
        return self.rnn(x)


def test_the_batch_of_outputs_is_where_it_is(tmp_path: Path) -> None:
    network = States()
    export_onnx(network, tmp_path / "m.onnx", torch.randn(1, 5, 4))
    found = dims(tmp_path / "m.onnx")
    assert list(found) == ["x", "y", "y1", "y2"]
    assert found["x"][0] == found["y"][0] == found["y1"][1] == "batch" and found["y1"][0] == 2
    x = torch.randn(3, 5, 4)
    with torch.no_grad():
        y, (h, _) = network(x)
    got = run(tmp_path / "m.onnx", {"x": x.numpy()})
    np.testing.assert_allclose(got[0], y.numpy(), atol=1e-5)
    np.testing.assert_allclose(got[1], h.numpy(), atol=1e-5)


class Odd(nn.Module):
    """Can't be exported, in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.inner, self.calls = way, nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Any:
        """Trouble."""
        self.calls += 1
        if self.way == "operator":
            return torch.linalg.svd(self.inner(x))[0] + torch.special.bessel_j0(self.inner(x)).sum()
        if self.way == "changes":
            return self.inner(x) * (1 if self.calls == 1 else 2)
        return "text"


@pytest.mark.parametrize(
    ("network", "inputs", "facts"),
    [
        (nn.Linear(4, 3), None, ["no example inputs"]),
        (nn.Linear(4, 3), (), ["Linear", "no tensor"]),
        (nn.Linear(4, 3), torch.ones(2, 5), ["Linear", "don't fit"]),
        (nn.Linear(4, 3), (X, X), ["Linear", "don't fit", "argument"]),
        (Odd("operator"), X, ["Odd", "can't export"]),
        (Odd("changes"), X, ["differs from torch"]),
        (Odd("text"), X, ["Odd", "str", "expected a tensor"]),
    ],
)  # fmt: skip
def test_a_failure_leaves_the_old_file_and_the_mode(
    network: nn.Module, inputs: Any, facts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    network.train()
    with pytest.raises(ExportError) as caught:
        export_onnx(network, path, inputs)
    said = str(caught.value)
    assert "\n" not in said and [fact for fact in facts if fact not in said] == [], said
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    assert all(module.training for module in network.modules())


def test_inputs_may_be_given_late(tmp_path: Path) -> None:
    network = cnn()
    pruner = Pruner(network, {"layers": [{"match": "15", "scheme": "filter", "sparsity": 0.5}]})
    with pytest.raises(ExportError, match="no example inputs"):
        pruner.export(tmp_path / "m.onnx")
    pruner.export(tmp_path / "m.onnx", digits()[0][:1])
    assert (tmp_path / "m.onnx").exists()


def test_export_while_weights_are_rounded(tmp_path: Path) -> None:
    """The file has the weights as they are; rounding goes on afterwards."""
    network, x = cnn(), digits()[2][:4]
    recipe = {
        "epochs": {"sparsify": 0, "recover": 0, "quantise": 1},
        "layers": [{"match": PRUNED, "scheme": "bcr:8x16", "sparsity": 0.5}],
    }  # fmt: skip
    pruner = Pruner(network, recipe, example_inputs=x, steps_per_epoch=9)
    train(network, 2, sgd(network), pruner)
    assert pruner.phase == "quantise"
    pruner.export(tmp_path / "m.onnx")
    ops = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "Round" not in ops
    network.eval()
    with torch.no_grad():
        rounded = network(x).numpy()
    assert np.abs(run(tmp_path / "m.onnx", {"x": x.numpy()})[0] - rounded).max() > 1e-4
    pruner.finalize()
    assert_agree(tmp_path / "m.onnx", network, x)


def test_float64(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 3)).double()
    with torch.no_grad():
        network[0].weight[0] = -0.0
    export_onnx(network, tmp_path / "m.onnx", X.double())
    for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer:
        array = numpy_helper.to_array(tensor)
        assert not np.signbit(array[array == 0]).any()


class OfTwo(nn.Module):
    """Takes batches of two only."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        """float[2, 3]."""
        assert len(x) == 2, "two, please"
        return self.inner(x)


def test_a_network_of_one_batch_size(tmp_path: Path) -> None:
    export_onnx(OfTwo(), tmp_path / "m.onnx", X)
    assert dims(tmp_path / "m.onnx") == {"x": ["batch", 4], "y": ["batch", 3]}
    with pytest.raises(ExportError, match="two, please"):
        export_onnx(OfTwo(), tmp_path / "n.onnx", torch.ones(3, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_written_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 8)).to(dtype), torch.randn(4, 24)
    pruner = Pruner(network, {"layers": [{"match": "re:.*", "scheme": "bcr:4x8", "sparsity": 0.75}]}, x.to(dtype))
    pruner.finalize()
    pruner.export(tmp_path / "half.onnx")
    assert network[0].weight.dtype == dtype, "the network itself has changed"
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "half.onnx").graph.initializer}
    np.testing.assert_array_equal(weights["0.weight"], network[0].weight.detach().float().numpy())
    assert_agree(tmp_path / "half.onnx", network.float(), x.to(dtype).float())


@pytest.mark.parametrize("part", [False, True])
def test_compiled_in_place_or_in_part(part: bool, tmp_path: Path) -> None:
    first, x = nn.Linear(24, 16), torch.randn(4, 24)
    network = nn.Sequential(torch.compile(first, backend="eager") if part else first, nn.Linear(16, 8))
    if not part:
        network.compile(backend="eager")
    network(x)
    export_onnx(network, tmp_path / "compiled.onnx", x)
    assert (network[0] is not first) is part and (network._compiled_call_impl is None) is part, "it isn't compiled now"
    assert_agree(tmp_path / "compiled.onnx", network, x)
