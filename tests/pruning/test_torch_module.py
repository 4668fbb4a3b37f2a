"""ONNX files as torch modules: answers, gradients, names. The lists of operators and models are walked."""

import copy
import functools

import numpy as np
import onnx
import pytest
import torch
from bench.zoo import ZOO
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from tests.compiler.test_conformance import cases, is_compiled
from tests.graph.fusions import CASES as FUSIONS
from tests.graph.models import MODELS
from tests.graph.structures import STRUCTURES
from tests.real.test_real_networks import inputs
from tests.runtime.networks import NETWORKS, Net, assert_agrees, feeds_for, onnxruntime_run
from torch import Tensor

from prunus.errors import FeedError, UnsupportedError
from prunus.graph.ir import OPS, Format, Graph
from prunus.graph.read import read
from prunus.pruning.torch_module import to_module
from prunus.pruning.torch_ops import ACTIVATION, FUNCTIONS, REFUSED, rounded

Arrays = dict[str, NDArray[np.float32]]
CASES = {**MODELS, **NETWORKS, **STRUCTURES, **{name: case.model for name, case in FUSIONS.items()}}


@functools.cache
def graph_of(name: str) -> Graph | None:
    """None where some part of the model runs in onnxruntime only."""
    try:
        graph = read(CASES[name](), fallback=False)
    except UnsupportedError:
        return None
    return None if partitions(graph) else graph


def partitions(graph: Graph) -> bool:
    """Outputs that are constants are of onnxruntime too."""
    return any(node.op == "onnxruntime" for node in graph.nodes)


@functools.cache
def node_tests() -> dict[str, Graph]:
    """Graphs of ONNX's own node tests that are compiled as a whole."""
    graphs = {}
    for name, case in cases().items():
        names = [value.name for value in case.model.graph.input]
        feeds = dict(zip(names, case.data_sets[0][0], strict=False))
        if is_compiled(case) and all(isinstance(a, np.ndarray) and a.size for a in feeds.values()):
            try:
                graph = read(case.model, {key: a.shape for key, a in feeds.items()}, fallback=False)
            except (UnsupportedError, FeedError):
                continue
            if not partitions(graph):
                graphs[name] = graph
    return graphs


COMPILED = [name for name in CASES if graph_of(name)]


def tensors(graph: Graph, feeds: Arrays) -> list[Tensor]:
    return [torch.from_numpy(np.array(feeds[name])) for name in graph.inputs]


def arrays(results: Tensor | tuple[Tensor, ...]) -> list[NDArray[np.float32]]:
    return [r.detach().numpy() for r in (results if isinstance(results, tuple) else (results,))]


def test_every_operator_is_computed_or_refused() -> None:
    assert set(FUNCTIONS) | set(REFUSED) == set(OPS) and not set(FUNCTIONS) & set(REFUSED)
    graphs = [*(graph_of(name) for name in COMPILED), *node_tests().values()]
    nodes = [node for graph in graphs if graph for node in graph.nodes]
    assert {node.op for node in nodes} >= set(FUNCTIONS) - {"pack", "unpack"}, "what no model has isn't tested"
    assert {a.kind for node in nodes if (a := node.attrs.get("activation"))} == {*ACTIVATION, "prelu"}


@pytest.mark.parametrize("name", sorted(node_tests()))
def test_node(name: str) -> None:
    case, graph = cases()[name], node_tests()[name]
    given, expected = case.data_sets[0]
    feeds = dict(zip((value.name for value in case.model.graph.input), given, strict=False))
    for got, wanted in zip(arrays(to_module(graph)(*tensors(graph, feeds))), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=max(case.rtol, 2e-5), atol=max(case.atol, 1e-6))


@pytest.mark.parametrize("name", COMPILED)
def test_same_answers(name: str) -> None:
    model, graph = CASES[name](), graph_of(name)
    assert graph is not None
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {key: a for key, a in feeds_for(model, seed=3).items() if key not in weights}
    assert_agrees(arrays(to_module(graph)(*tensors(graph, feeds))), onnxruntime_run(model, feeds))


@pytest.mark.parametrize("name", COMPILED)
def test_gradients(name: str) -> None:
    """Of a random combination of the outputs, along a random direction of all inputs and weights, as differences in
    double precision say; outputs that aren't finite, as roots of negatives, are left out."""
    graph = graph_of(name)
    assert graph is not None
    module = to_module(graph).double()
    rng = torch.Generator().manual_seed(1)
    points = [torch.randn(graph.values[n].shape, generator=rng, dtype=torch.float64) for n in graph.inputs]
    variables = [*points, *(p.data for p in module.parameters())]
    steps = [torch.randn(v.shape, generator=rng, dtype=torch.float64) for v in variables]
    base = [v + 0.1 * torch.randn(v.shape, generator=rng, dtype=torch.float64) for v in variables]  # zeros are kinks

    def outputs() -> Tensor:
        results = module(*points)
        flat = torch.cat([r.reshape(-1) for r in (results if isinstance(results, tuple) else (results,))])
        return flat[finite] if finite is not None else flat

    def at(t: float) -> float:
        for v, b, s in zip(variables, base, steps, strict=True):
            v.data.copy_(b + t * s)
        return float(outputs().detach() @ mix)

    finite, mix = None, torch.zeros(0, dtype=torch.float64)
    for variable, value in zip(variables, base, strict=True):
        variable.data.copy_(value)
    finite = torch.isfinite(outputs().detach())
    mix = torch.randn(int(finite.sum()), generator=rng, dtype=torch.float64)
    for point in points:
        point.requires_grad_(True)
    (outputs() @ mix).backward()
    along, h = 0.0, 1e-6
    read_inputs = {name for node in graph.nodes for name in node.inputs}
    for i, (variable, step) in enumerate(zip((*points, *module.parameters()), steps, strict=True)):
        if i < len(points) and graph.inputs[i] not in read_inputs:
            continue
        assert variable.grad is not None, "no gradient"
        along += float((torch.nan_to_num(variable.grad, 0, 0, 0) * step).sum())
    with torch.no_grad():
        expected = (at(h) - at(-h)) / (2 * h)
    assert abs(along - expected) <= 1e-5 * max(abs(expected), 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"size": 64}),
        ("vgg16-32", {}),
        pytest.param("mobilenetv2", {}, marks=pytest.mark.slow),
        pytest.param("efficientnet-lite0", {}, marks=pytest.mark.slow),
        pytest.param("resnet50", {}, marks=pytest.mark.slow),
        pytest.param("vgg16", {}, marks=pytest.mark.slow),
    ],
)
def test_zoo(name: str, options: dict[str, int]) -> None:
    model = ZOO[name](**options)
    module, feeds = to_module(model), feeds_for(model)
    assert_agrees(arrays(module(torch.from_numpy(feeds["x"]))), onnxruntime_run(model, feeds))
    given = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.dims}
    found = {key: parameter.detach().numpy() for key, parameter in module.named_parameters()}
    assert set(found) == set(given), "names are those of the file"
    for key, array in found.items():
        np.testing.assert_array_equal(array, given[key], err_msg=key)


def test_zoo_is_walked() -> None:
    (mark,) = [m for m in test_zoo.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    assert {next(iter(p.values)) if hasattr(p, "values") else p[0] for p in mark.args[1]} == set(ZOO)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_real_networks(name: str) -> None:
    model, x = inputs(name)
    feeds = {"x": np.ascontiguousarray(x[:8], np.float32)}
    module = to_module(model)
    assert_agrees(arrays(module(torch.from_numpy(feeds["x"]))), onnxruntime_run(onnx.load_from_string(model), feeds))


def test_batch_is_free_where_the_graph_says_so() -> None:
    for name in ("residual", "classifier", "strided", "two_ports"):
        model = NETWORKS[name]("N")
        module, feeds = to_module(model), feeds_for(model, batch=3)
        found = module(*(torch.from_numpy(a) for a in feeds.values()))
        assert_agrees(arrays(found), onnxruntime_run(model, feeds))


def test_parts_of_onnxruntime_are_refused_by_name() -> None:
    model = NETWORKS["partitioned"]()
    with pytest.raises(UnsupportedError, match=r"lrn2.*LRN"):
        to_module(model)
    with pytest.raises(UnsupportedError, match="operator onnxruntime"):
        to_module(read(model))


def named(*names: str) -> onnx.ModelProto:
    """A sum of x times constants of these names, by 1x1 convolutions."""
    net = Net({"x": (1, 2, 3, 3)})
    total = "x"
    for name in names:
        net.weight(2, 2, 1, 1, zeros=0)
        net.weights[-1].name = name
        total = net.add("Add", total, net.add("Conv", "x", name))
    return net.model(total)


def test_names_that_attributes_cannot_have() -> None:
    names = ("a.b", "a", "forward", "x..y", "graph", "training", "onnx::Conv_3", "fire2/squeeze1x1.w", "a.b.c", ".")
    model = named(*names)
    module, feeds = to_module(model), feeds_for(model)
    assert_agrees(arrays(module(torch.from_numpy(feeds["x"]))), onnxruntime_run(model, feeds))
    found = set(module.state_dict())
    assert len(found) == len(names) and found >= {"a.b", "onnx::Conv_3", "fire2/squeeze1x1.w"}
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    assert_agrees(arrays(twin(torch.from_numpy(feeds["x"]))), onnxruntime_run(model, feeds))


def test_a_shared_weight_is_one_parameter() -> None:
    net = Net({"x": (1, 4, 5, 5)})
    shared = net.weight(4, 4, 1, 1, zeros=0)
    module = to_module(net.model(net.add("Conv", net.add("Relu", net.add("Conv", "x", shared)), shared)))
    assert [name for name, _ in module.named_parameters()] == [shared]


def test_rounding_has_the_gradient_of_the_identity() -> None:
    x = torch.tensor([-1.0, 0.26, 0.24, 300.0, 1.00390625], requires_grad=True)
    for form, expected in (
        (Format(4, 0.5, 1), [-0.5, 0.5, 0.0, 127.0, 1.0]),
        (Format(2), [-1.0, 0.259765625, 0.240234375, 300.0, 1.0]),
    ):
        x.grad = None
        y = rounded(x, form)
        np.testing.assert_array_equal(y.detach().numpy(), np.float32(expected))
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), np.ones(5))  # type: ignore[attr-defined]


class Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[Arrays]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> Arrays | None:
        return next(self.batches, None)


def test_qdq_files_are_rounded(tmp_path: object) -> None:
    model = NETWORKS["residual"]()
    source, made = f"{tmp_path}/m.onnx", f"{tmp_path}/q.onnx"
    onnx.save(model, source)
    quantize_static(source, made, Batches([feeds_for(model, seed=i) for i in range(4)]), QuantFormat.QDQ)
    graph = read(made, fallback=False)
    assert {"pack", "unpack"} <= {node.op for node in graph.nodes}
    feeds = feeds_for(model, seed=9)
    module = to_module(graph)
    (found,), (expected,) = arrays(module(*tensors(graph, feeds))), onnxruntime_run(onnx.load(made), feeds)
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max(), "but for a step here and there"
    x = tensors(graph, feeds)[0].requires_grad_(True)
    module(x).sum().backward()
    assert float(x.grad.abs().max()) > 0  # type: ignore[union-attr]
