"""Times of narrower layers: which node is which layer, what a narrower one looks like, and what comes of the times."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunus.compiler.compile import read_at_batch_1
from prunus.compiler.explore import full
from prunus.compiler.latency import Latencies, Place
from prunus.compiler.translate import Layer, layer_of, spell_out
from prunus.compiler.tune import Tuner
from prunus.graph.ir import Graph
from prunus.graph.load import load_model
from prunus.kernels.library import isa_for, kernel_library
from prunus.runtime.cpu import describe
from prunus.search.branches import merge
from prunus.search.choose import cost
from prunus.search.costs import macs
from prunus.search.times import _onnx, grid, latency, match, narrower
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.groups import Groups
from tests.search.test_gates import nets
from tests.training.shrink.nets import IMAGE, block

NETS = nets()
NETS["flat"] = nn.Sequential(block(3, 8, stride=4), block(8, 8, groups=2), nn.Flatten(), nn.Linear(8 * 16, 6)).eval()


def read(net: nn.Module) -> tuple[Groups, Graph]:
    merged = merge(net)
    proto = load_model(_onnx(merged, (IMAGE,)))
    return find_groups(merged, IMAGE), spell_out(read_at_batch_1(proto, {"x": (1, *IMAGE.shape[1:])}, True))


def kept(folder: Path) -> Latencies:
    return Latencies(folder / "latency.sqlite", Place("here", "these", 1))


@pytest.mark.parametrize("name", sorted(NETS))
def test_each_layer_is_a_node(name: str) -> None:
    groups, graph = read(NETS[name])
    nodes = match(groups, graph)
    assert all(node is not None for node in nodes)
    assert len({node.name for node in nodes if node}) == len(nodes)
    for node, call in zip(nodes, groups.calls, strict=True):
        assert node is not None
        shape, out = groups.shapes[call.weight], graph.values[node.outputs[0]].shape
        assert int(np.prod(out)) * len(IMAGE) == call.positions * shape[0]


def test_names_decide_where_there_are_any() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.relu()) + self.b(x)

    groups, graph = read(Turned())
    for node, call in zip(match(groups, graph), groups.calls, strict=True):
        assert node is not None and node.attrs["weight"] == call.weight


@pytest.mark.parametrize("name", sorted(NETS))
def test_narrower_layers_run(name: str) -> None:
    groups, graph = read(NETS[name])
    target = describe().best_target
    assert target is not None
    isa = isa_for(target)
    tuner = Tuner(isa, 1, "fast", kernel_library(isa), lambda _: "")
    nodes = match(groups, graph)
    for node, call in list(zip(nodes, groups.calls, strict=True))[1:4]:
        assert node is not None
        filters, channels, step = grid(groups, call)
        own, small = narrower(node, graph, filters[0], channels[0], step)
        layer = full(layer_of(own, small, isa))
        assert layer.matrix.shape[0] == filters[0]
        assert small.values[own.outputs[0]].shape[1] == filters[0]
        assert tuner.time_ms(layer, small) > 0


def test_grids() -> None:
    net = nn.Sequential(block(3, 16), block(16, 16, groups=16), block(16, 16, groups=2), nn.Conv2d(16, 5, 1))
    groups = find_groups(net, IMAGE)
    grids = [grid(groups, call) for call in groups.calls]
    assert grids[0] == ([2, 4, 8, 12, 16], [3], 0)
    assert grids[1] == ([2, 4, 8, 12, 16], [1], 1)
    assert grids[2] == ([2, 4, 8, 12, 16], [1, 2, 4, 6, 8], 0)
    assert grids[3] == ([5], [2, 4, 8, 12, 16], 0)


@pytest.mark.parametrize("name", sorted(NETS))
def test_layers_by_their_multiply_adds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layer takes as long as it has multiply-adds, the cost is theirs, at measured widths and between."""
    measured = []

    def time_ms(_: Tuner, layer: Layer, graph: Graph) -> float:
        out = graph.values[layer.node.outputs[0]].shape
        measured.append(layer.node.name)
        return float(layer.matrix.size) * int(np.prod(out[2:]))

    monkeypatch.setattr(Tuner, "time_ms", time_ms)
    merged = merge(NETS[name])
    groups, keep = find_groups(merged, IMAGE), np.random.default_rng(0).random
    of, plain = latency(merged, IMAGE, groups, 1, kept=kept(tmp_path)), macs(groups)
    for _ in range(3):
        some = keep(groups.n) < 0.6
        assert cost(of, some) == pytest.approx(cost(plain, some), rel=0.02)
    first = len(measured)
    again = latency(merged, IMAGE, groups, 1, kept=kept(tmp_path))
    assert len(measured) == first and again.whole == of.whole


def test_a_transposed_layer_counts_by_its_multiply_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuner, "time_ms", lambda *_: 2.0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 3, 2, 2)).eval()
    groups = find_groups(net, IMAGE)
    assert match(groups, read(net)[1])[1] is None
    of = latency(net, IMAGE, groups, 1, kept=kept(tmp_path))
    n = [call.positions * int(np.prod(groups.shapes[call.weight])) for call in groups.calls]
    assert of.whole == pytest.approx(2.0 * (1 + n[1] / n[0]))
    assert float(of(torch.zeros(groups.n))) < 1
