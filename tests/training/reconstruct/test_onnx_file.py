"""ONNX files: the file's nodes stay, the torch way and this one agree, and what comes out compiles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import prunus
from prunus.errors import CalibrationError, FeedError, UnsupportedError
from prunus.pruning.one_shot import prune_layers
from prunus.pruning.torch_module import to_module
from prunus.sparsity.check import check
from prunus.sparsity.scheme import FORMS, parse
from prunus.sparsity.schemes import SCHEMES
from prunus.training.reconstruct import Options, reconstruct, reconstruct_onnx
from tests.training.reconstruct.networks import Small, inputs

BATCHES = [inputs(8, 8, 9, 9, seed=seed) for seed in range(4)]
FEEDS = [{"x": batch.numpy()} for batch in BATCHES]


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(nodes: list[Any], out: list[Any], dims: list[Any] = ["N", 8, 9, 9], **arrays: Any) -> ModelProto:  # noqa: B006
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", dims), ("y", out))]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def exported(model: torch.nn.Module, path: Path) -> ModelProto:
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    torch.onnx.export(
        model.eval(), (BATCHES[0],), path, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False
    )
    return onnx.load(path)


def tensors(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def answers(model: ModelProto) -> NDArray[Any]:
    with torch.no_grad():
        return np.concatenate([to_module(model)(batch).numpy() for batch in BATCHES])


def error(model: ModelProto, dense: ModelProto) -> float:
    wanted = answers(dense)
    return float(np.linalg.norm(answers(model) - wanted) / np.linalg.norm(wanted))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("distil", [0, 1])
def test_both_ways_agree(distil: int, tmp_path: Path) -> None:
    network = Small()
    model = exported(network, tmp_path / "m.onnx")
    made = reconstruct_onnx(model, "bcr:4x16", 0.5, ["re:first"], FEEDS, Options(distil=distil)).result
    rule = {"match": "re:second|point|linear", "scheme": "bcr:4x16", "sparsity": 0.5}
    result = reconstruct(network, {"layers": [rule]}, BATCHES, Options(distil=distil))
    found = tensors(made.model)
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(found[name], parameter.detach().numpy(), rtol=1e-3, atol=1e-4)
    for name, mask in result.masks.items():
        np.testing.assert_array_equal(found[name] != 0, mask)
    session = prunus.compile(made.model, tune="off")
    with torch.no_grad():
        wanted = network.eval()(BATCHES[0]).numpy()
    np.testing.assert_allclose(session.run(None, FEEDS[0])[0], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", SCHEMES)
def test_the_file_is_as_prune_layers_leaves_it(name: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    model = build(nodes, ["N", 16, 9, 9], w=draw(16, 8, 3, 3), b=draw(16))
    family, scheme = SCHEMES[name], parse(FORMS[name])
    sparsity = None if family.fixed else max(0.5, 1 - family.densest(scheme))
    before = model.SerializeToString()
    made, plain = reconstruct_onnx(model, scheme, sparsity, (), FEEDS), prune_layers(model, scheme, sparsity)
    assert model.SerializeToString() == before
    assert [n.SerializeToString() for n in made.result.model.graph.node] == [
        n.SerializeToString() for n in plain.model.graph.node
    ]
    assert {k: v.shape for k, v in tensors(made.result.model).items()} == {
        k: v.shape for k, v in tensors(plain.model).items()
    }
    assert check(tensors(made.result.model)["w"] != 0, scheme) is None
    (ours,), (theirs,) = made.result.layers, plain.layers
    assert (ours.name, ours.weight, ours.shape, ours.scheme) == (theirs.name, theirs.weight, theirs.shape, scheme)
    assert ours.sparsity == pytest.approx(theirs.sparsity, abs=0.03)
    described = json.loads({p.key: p.value for p in made.result.model.metadata_props}["prunus.layers"])
    assert described["w"]["sparsity"] == pytest.approx(ours.sparsity, abs=1e-6)
    (errors,) = made.errors
    assert errors.reconstructed <= errors.magnitude


BATCH_NORM = {"s": np.abs(draw(16, seed=3)) + 0.5, "t": draw(16, seed=4), "m": draw(16, seed=5),
              "v": np.abs(draw(16, seed=6)) + 0.5}  # fmt: skip
FOLDED: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {
    "batch norm": (
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["y"], name="bn"),
        ],
        ["N", 16, 7, 7],
        {"w": draw(16, 8, 3, 3), **BATCH_NORM},
    ),
    "batch norm and bias, a dead filter": (
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
            helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["y"], name="bn"),
        ],
        ["N", 16, 7, 7],
        {"w": draw(16, 8, 3, 3), "b": draw(16, seed=1), **BATCH_NORM, "s": np.arange(16, dtype=np.float32)},
    ),
    "gemm with alpha and beta": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="fc", alpha=0.5, beta=2.0),
        ],
        ["N", 16],
        {"w": draw(648, 16), "b": draw(16, seed=1)},
    ),
    "gemm without bias, transposed": (
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)],
        ["N", 16],
        {"w": draw(16, 648)},
    ),
    "matmul and add": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["p"]),
            helper.make_node("Add", ["b", "p"], ["y"]),
        ],
        ["N", 16],
        {"w": draw(648, 16), "b": draw(16, seed=1)},
    ),
    "bias with another reader": (
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="one"),
            helper.make_node("Conv", ["x", "v", "b"], ["d"], name="two"),
            helper.make_node("Add", ["c", "d"], ["y"]),
        ],
        ["N", 16, 7, 7],
        {"w": draw(16, 8, 3, 3), "v": draw(16, 8, 3, 3, seed=7), "b": draw(16, seed=1)},
    ),
    "weight in a Constant node": (
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(draw(16, 8, 3, 3), "w")),
            helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv"),
        ],
        ["N", 16, 7, 7],
        {"b": draw(16, seed=1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("distil", [0, 2])
@pytest.mark.parametrize("name", FOLDED)
def test_folded_scales_and_biases_go_back_into_the_file(name: str, distil: int) -> None:
    nodes, out, arrays = FOLDED[name]
    model = build(nodes, out, **arrays)
    made = reconstruct_onnx(model, "block-column:8x16", 0.5, (), FEEDS, Options(distil=distil))
    onnx.checker.check_model(made.result.model, full_check=True)
    plain = prune_layers(model, "block-column:8x16", 0.5)
    assert error(made.result.model, model) < error(plain.model, model)
    if not distil and len(made.errors) == 1:  # what the module answered is what the file answers
        assert error(made.result.model, model) == pytest.approx(made.errors[0].reconstructed, rel=0.3, abs=1e-3)
    for layer in made.result.layers:
        assert layer.sparsity == pytest.approx(0.5, abs=0.02)


def test_a_shared_weight() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="one", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["y"], name="two", pads=[1] * 4),
    ]
    model = build(nodes, ["N", 8, 9, 9], w=draw(8, 8, 3, 3) * 0.2, b=draw(8))
    made = reconstruct_onnx(model, "block-column:8x16", 0.5, (), FEEDS)
    assert error(made.result.model, model) < error(prune_layers(model, "block-column:8x16", 0.5).model, model)
    np.testing.assert_array_equal(tensors(made.result.model)["b"], tensors(model)["b"])


def test_a_bias_that_an_ignored_layer_reads_too_stays() -> None:
    nodes, out, arrays = FOLDED["bias with another reader"]
    model = build(nodes, out, **arrays)
    made = reconstruct_onnx(model, "block-column:8x16", 0.5, ["two"], FEEDS, Options(distil=1)).result
    np.testing.assert_array_equal(tensors(made.model)["b"], arrays["b"])
    assert list(made.model.graph.node[0].input) == ["x", "w", "b"]
    assert {layer.name: layer.note for layer in made.layers} == {"one": "", "two": "ignored"}


def test_a_weight_with_two_scales_stays_dense() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="one"),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], name="bn"),
        helper.make_node("Conv", ["x", "w"], ["d"], name="two"),
        helper.make_node("Add", ["n", "d"], ["e"]),
        helper.make_node("Conv", ["e", "z"], ["y"], name="three"),
    ]
    model = build(nodes, ["N", 16, 5, 5], w=draw(16, 8, 3, 3), z=draw(16, 16, 3, 3), **BATCH_NORM)
    made = reconstruct_onnx(model, "unstructured", 0.5, (), FEEDS).result
    np.testing.assert_array_equal(tensors(made.model)["w"], tensors(model)["w"])
    by_name = {layer.weight: layer for layer in made.layers}
    assert "scales" in by_name["w"].note and by_name["w"].scheme is None
    assert by_name["z"].sparsity == 0.5


def test_a_fixed_batch() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    model = build(nodes, [2, 16, 7, 7], [2, 8, 9, 9], w=draw(16, 8, 3, 3))
    made = reconstruct_onnx(model, "unstructured", 0.5, (), FEEDS)
    assert made.errors[0].reconstructed < made.errors[0].magnitude


def test_bad_feeds_are_refused() -> None:
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], ["N", 16, 7, 7], w=draw(16, 8, 3, 3))
    with pytest.raises(CalibrationError, match="NaN"):
        reconstruct_onnx(model, "filter", 0.5, (), [{"x": np.full((1, 8, 9, 9), np.nan, np.float32)}])
    with pytest.raises(CalibrationError, match="no batches"):
        reconstruct_onnx(model, "filter", 0.5, (), [])
    with pytest.raises(FeedError, match="'z'"):
        reconstruct_onnx(model, "filter", 0.5, (), [{"z": FEEDS[0]["x"]}])
    with pytest.raises(FeedError, match="shape"):
        reconstruct_onnx(model, "filter", 0.5, (), [{"x": draw(1, 8, 7, 9)}])


def test_an_operator_without_torch_form_is_refused_by_name() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Det", ["c"], ["y"], name="odd")]
    with pytest.raises(UnsupportedError, match="odd"):
        reconstruct_onnx(build(nodes, ["N", 16], w=draw(16, 8, 3, 3)), "filter", 0.5, (), FEEDS)


def test_public_call_reconstructs_where_there_is_calibration() -> None:
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], name="c")], ["N", 16, 7, 7], w=draw(16, 8, 3, 3))
    reports: list[Any] = []
    plain = prunus.prune_onnx(model, "bcr:8x16", 0.5)
    made = prunus.prune_onnx(model, "bcr:8x16", 0.5, calibration=FEEDS, report=reports.append)
    assert error(made, model) < error(plain, model)
    assert [report.name for report in reports] == ["c"]
