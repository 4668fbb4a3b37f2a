"""Layers of a model: which there are, what can't be pruned and why, how much they compute."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.compiler.virtual import masked
from prunus.errors import ModelError, TargetError
from prunus.mapping.network import read_network
from prunus.mapping.options import full_space
from prunus.pruning.onnx_weights import weights
from prunus.sparsity.scheme import parse
from tests.mapping.fakes import network, sources
from tests.runtime.networks import Net


def test_layers_in_order_with_their_work() -> None:
    sites = read_network(network(), threads=1).sites
    assert [(site.op, site.shape) for site in sites] == [
        ("Conv", (16, 3, 3, 3)), ("Conv", (16, 1, 3, 3)), ("Conv", (32, 16, 1, 1)), ("Conv", (32, 32, 3, 3)),
        ("Conv", (16, 32, 5, 5)), ("Gemm", (10, 16)),
    ]  # fmt: skip
    assert [site.macs for site in sites] == [27648, 9216, 32768, 589824, 819200, 160]
    assert [site.refusal for site in sites] == ["", "depthwise or grouped", "", "", "", ""]
    assert [site.first for site in sites] == [True] + [False] * 5 and [site.last for site in sites][-1]
    assert sites[3].kernel == (3, 3) and sites[5].kernel == ()


def test_a_pointwise_convolution_may_be_the_classifier() -> None:
    net = Net({"x": (1, 3, 8, 8)})
    x = net.conv(net.conv("x", 8, 3), 10, 8, 1)
    sites = read_network(net.model(net.add("GlobalAveragePool", x)), threads=1).sites
    assert [site.last for site in sites] == [False, True]
    wide = net.model(net.add("GlobalAveragePool", net.conv(x, 10, 10)))
    assert not any(site.last for site in read_network(wide, threads=1).sites)


def test_layers_that_share_weights_are_one() -> None:
    net = Net({"x": (1, 8, 6, 6)})
    weight = net.weight(8, 8, 3, 3)
    x = net.add("Conv", "x", weight, pads=[1] * 4)
    model = net.model(net.add("Conv", net.add("Relu", x), weight, pads=[1] * 4))
    (site,) = read_network(model, threads=1).sites
    assert len(site.nodes) == 2 and site.macs == 2 * 576 * 36 and len(site.layers) == 2


def test_nodes_without_names_go_by_their_outputs() -> None:
    model = network()
    for node in model.graph.node:
        node.name = ""
    expected = [weight.layer for weight in weights(model)]
    assert [site.name for site in read_network(model, threads=1).sites] == expected


@pytest.mark.parametrize("steps", [5, 90])  # many have the input's part over time by itself
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers_are_pruned_in_both_weights(direction: str, steps: int) -> None:
    n, i, h = 2 if direction == "bidirectional" else 1, 12, 16
    rng = np.random.default_rng(0)
    arrays = {"W": rng.standard_normal((n, 3 * h, i)), "R": rng.standard_normal((n, 3 * h, h))}
    node = helper.make_node("GRU", ["x", *arrays], ["", "h"], name="gru", hidden_size=h, direction=direction)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, i])],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [n, 1, h])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    read = read_network(model, threads=1)
    (site,) = read.sites
    assert (site.name, site.op, len(site.nodes)) == ("gru", "GRU", n) and not (site.first or site.last)
    (layer,) = full_space(sources(model), (0.8,)).layers
    assert layer.n_weights == n * 3 * h * (i + h) == sum(array.size for array in arrays.values())
    assert [weight.name for weight in site.weights] == ["W", "R"] and site.macs == n * steps * 3 * h * (i + h)
    parts = masked(site.nodes[0], read.graph, parse("block-column:4x16"), 0.5, read.tuner())
    kept = sum(np.count_nonzero(layer.matrix) for layer, _, _ in parts)
    assert [times for _, _, times in parts] == ([5] if steps == 5 else [90, 2])
    assert 0.4 < kept / (3 * h * (i + h)) < 0.65


def test_refuses() -> None:
    relu = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    with pytest.raises(ModelError, match="no layer that could be pruned"):
        read_network(helper.make_model(relu, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    with pytest.raises(TargetError, match="precision 'fp8'"):
        read_network(network(), precision="fp8")
    foreign = read_network(onnx.ModelProto.FromString(network().SerializeToString()), target="aarch64-neon", threads=1)
    assert not foreign.here
    with pytest.raises(TargetError, match="this CPU lacks"):
        foreign.tuner()
