"""`explore` measures layers under virtual zeros, whatever zeros they have."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.compiler import explore as module
from prunus.compiler.explore import ExploreRow, explore
from prunus.compiler.translate import Layer
from prunus.errors import SchemeError, TargetError
from prunus.pruning.one_shot import prune_onnx
from tests.runtime.networks import Net


def network() -> onnx.ModelProto:
    """Two layers alike, one of 1x1, and a depthwise one, which isn't explored."""
    net = Net({"x": (1, 16, 6, 6)})
    x = net.conv(net.conv("x", 16, 16), 16, 16)
    return net.model(net.conv(net.conv(x, 24, 16, 1), 24, 24, group=24))


def rows_of(model: onnx.ModelProto, *schemes: str) -> list[ExploreRow]:
    return list(explore(model, schemes, [0.5, 0.9], threads=1))


def test_a_row_per_kind_of_layer_scheme_and_sparsity() -> None:
    rows = rows_of(network(), "bcr:4x16", "pattern:4")
    assert [(row.count, row.shape, row.scheme, row.sparsity) for row in rows] == [
        (count, shape, scheme, sparsity)
        for count, shape in ((2, (16, 16, 3, 3)), (1, (24, 16, 1, 1)))
        for scheme in ("bcr:4x16", "pattern:4")
        for sparsity in (0.5, 0.9)
    ]
    for row in rows:
        if row.scheme == "pattern:4" and (row.shape[2:] == (1, 1) or row.sparsity == 0.5):  # keeps 4 of 9 at most
            assert row.ms is None and row.note
        else:
            assert row.ms is not None and row.ms > 0 and row.dense_ms > 0
            assert row.achieved == pytest.approx(row.sparsity, abs=0.03)


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_recurrent_layers_too(op: str) -> None:
    n_gates = {"GRU": 3, "LSTM": 4}[op]
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((1, n_gates * 16, 12)), "r": rng.standard_normal((1, n_gates * 16, 16))}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w", "r"], ["", "h"], name="cell", hidden_size=16)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 12])],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 1, 16])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rows = rows_of(model, "block-column:4x16", "pattern:4")
    assert [(row.layer, row.scheme, row.sparsity, row.ms is None) for row in rows] == [
        ("cell", "block-column:4x16", 0.5, False), ("cell", "block-column:4x16", 0.9, False),
        ("cell", "pattern:4", 0.5, True), ("cell", "pattern:4", 0.9, True),
    ]  # fmt: skip
    assert all(row.dense_ms > 0 and row.shape == (n_gates * 16, 12) for row in rows)


def test_layers_that_were_pruned_before_count_as_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Layer] = []

    class Spy(module.Tuner):
        def time_ms(self, layer: Layer, graph: object) -> float:
            seen.append(layer)
            return 1.0

    monkeypatch.setattr(module, "Tuner", Spy)
    list(explore(prune_onnx(network(), scheme="filter", sparsity=0.9), ["unstructured"], [0.5], threads=1))
    density = [np.count_nonzero(layer.matrix) / layer.matrix.size for layer in seen]
    assert density == pytest.approx([1.0, 0.5, 1.0, 0.5], abs=0.01)


def test_refuses() -> None:
    with pytest.raises(TargetError, match="sparsity 1"):
        list(explore(network(), ["unstructured"], [1.0]))
    with pytest.raises(SchemeError, match="nonsense"):
        list(explore(network(), ["nonsense"], [0.5]))
