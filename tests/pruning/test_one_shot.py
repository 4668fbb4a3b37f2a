"""One-shot pruning of small ONNX models: which weights, how many zeros, what stays as it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from prunus.errors import ModelError, RuleError, SchemeError
from prunus.pruning.one_shot import prune_by_rules, prune_layers, prune_onnx
from prunus.sparsity.check import check
from prunus.sparsity.scheme import parse


def draw(*shape: int, seed: int = 0, dtype: Any = np.float32) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def build(nodes: Sequence[NodeProto], outputs: Sequence[str] = ("y",), ir: int = 10, **arrays: Any) -> ModelProto:
    """A model whose initialisers are `arrays`; x is its input. Not checked: shapes don't matter
    here.
    """
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, ends, tensors)
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", 18)])


def node(op: str, *inputs: str, name: str = "", out: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), [out], name=name or op.lower(), **attributes)


def tensors(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def props(model: ModelProto) -> dict[str, str]:
    return {prop.key: prop.value for prop in model.metadata_props}


@pytest.mark.parametrize(
    ("layer", "weight", "view"),
    [
        (node("Conv", "x", "w"), draw(32, 16, 3, 3), lambda w: w),
        (node("Gemm", "x", "w", transB=1), draw(40, 96), lambda w: w),
        (node("Gemm", "x", "w"), draw(96, 40), lambda w: w.T),
        (node("MatMul", "x", "w"), draw(96, 40), lambda w: w.T),
        (node("MatMul", "w", "x"), draw(40, 96), lambda w: w),
    ],
)
@pytest.mark.parametrize("scheme", ["bcr:8x16", "block-column:8x16", "punched:4x2", "unstructured"])
def test_layers_are_pruned_with_filters_first(layer: NodeProto, weight: NDArray[Any], view: Any, scheme: str) -> None:
    model = build([layer], w=weight)
    before = model.SerializeToString()
    result = prune_layers(model, scheme, 0.75)
    assert model.SerializeToString() == before
    sparse = tensors(result.model)["w"]
    mask = view(sparse) != 0
    assert check(mask, parse(scheme)) is None
    np.testing.assert_array_equal(sparse, np.where(sparse != 0, weight, 0))
    (report,) = result.layers
    assert report.shape == view(weight).shape and report.scheme == parse(scheme)
    assert report.sparsity == pytest.approx(1 - mask.mean()) == pytest.approx(0.75, abs=0.005)
    assert result.sparsity == pytest.approx(report.sparsity)


@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("hidden", [16, 20])
def test_recurrent_gates_are_stacked(op: str, gates: int, hidden: int) -> None:
    """As one matrix where blocks of 8 rows fit; else each gate of each direction is one."""
    w, r = draw(2, gates * hidden, 32), draw(2, gates * hidden, hidden, seed=1)
    layer = node(op, "x", "w", "r", hidden_size=hidden, direction="bidirectional")
    result = prune_layers(build([layer], w=w, r=r), "bcr:8x16", 0.8)
    assert [report.weight for report in result.layers] == ["w", "r"]
    for name, original in (("w", w), ("r", r)):
        sparse = tensors(result.model)[name]
        assert sparse.shape == original.shape
        mask = sparse.reshape(-1, sparse.shape[-1]) != 0
        for part in [mask] if hidden == 16 else np.split(mask, 2 * gates):
            assert check(part, parse("bcr:8x16")) is None
        assert 1 - mask.mean() == pytest.approx(0.8, abs=0.02)


def test_metadata_tells_scheme_and_sparsity() -> None:
    model = build([node("Gemm", "x", "w")], w=draw(64, 64))
    helper.set_model_props(model, {"author": "me", "prunus.scheme": "old"})
    found = props(prune_onnx(model, "2:4"))
    assert found["author"] == "me" and found["prunus.scheme"] == "2:4"
    assert float(found["prunus.sparsity"]) == 0.5
    assert json.loads(found["prunus.layers"])["w"] == {
        "layer": "gemm", "scheme": "2:4", "sparsity": 0.5,
    }  # fmt: skip


def test_pruning_is_deterministic_and_reads_bytes_and_paths(tmp_path: Path) -> None:
    model = build([node("Gemm", "x", "w")], w=draw(64, 64))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    made = [prune_onnx(m, "bcr:8x16", 0.9) for m in (model, str(path), path, path.read_bytes())]
    assert len({m.SerializeToString(deterministic=True) for m in made}) == 1


def test_external_data_is_read(tmp_path: Path) -> None:
    model = build([node("Gemm", "x", "w")], w=draw(64, 64))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    assert (tensors(prune_onnx(tmp_path / "m.onnx", "filter", 0.5))["w"] == 0).mean() == 0.5


def test_weights_in_constant_nodes() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(draw(16, 16)))
    pruned = prune_onnx(build([constant, node("MatMul", "x", "w")]), "unstructured", 0.5)
    value = numpy_helper.to_array(pruned.graph.node[0].attribute[0].t)
    assert np.count_nonzero(value) == 128


def test_weights_through_transpose_are_seen() -> None:
    nodes = [node("Transpose", "w", perm=[1, 0], out="wt"), node("MatMul", "x", "wt")]
    sparse = tensors(prune_onnx(build(nodes, w=draw(24, 64)), "filter", 0.5))["w"]
    np.testing.assert_array_equal(np.unique((sparse != 0).sum(1)), [0, 64])


def test_weights_in_a_branch_are_pruned() -> None:
    ends = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    inner = [numpy_helper.from_array(draw(16, 16), "inner")]
    body = [
        helper.make_graph([node("MatMul", "x", w, out="b", name=w)], w, [], ends, own)
        for w, own in (("inner", inner), ("outer", []))
    ]
    branch = node("If", "c", then_branch=body[0], else_branch=body[1])
    result = prune_layers(build([branch], c=np.array(True), outer=draw(16, 16)), "filter", 0.5)
    assert {report.weight: report.sparsity for report in result.layers} == {
        "inner": 0.5,
        "outer": 0.5,
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_keep_their_type(dtype: Any) -> None:
    sparse = tensors(prune_onnx(build([node("MatMul", "x", "w")], w=draw(32, 32, dtype=dtype)), "filter", 0.5))["w"]
    assert sparse.dtype == dtype and (sparse == 0).mean() == 0.5


def test_what_is_left_dense_says_why() -> None:
    nodes = [
        node("Conv", "x", "dw", name="depthwise", group=8, out="a"),
        node("Conv", "a", "pw", name="pointwise", out="b"),
        node("Conv", "b", "k3", name="kernel3", out="c"),
        node("Gemm", "c", "x", name="dynamic", out="d2"),
        node("Conv", "d2", "q", name="integer"),
    ]
    arrays = {
        "dw": draw(8, 1, 3, 3), "pw": draw(16, 8, 1, 1), "k3": draw(16, 16, 3, 3),
        "q": np.ones((4, 4, 3, 3), np.int8),
    }  # fmt: skip
    result = prune_layers(build(nodes, **arrays), "pattern:4", 0.8)
    notes = {report.name: report.note for report in result.layers if report.scheme is None}
    assert notes["depthwise"] == "grouped convolution"
    assert "3x3" in notes["pointwise"] and "1x1" in notes["pointwise"]
    assert "constant" in notes["dynamic"] and "int8" in notes["integer"]
    assert (tensors(result.model)["k3"] == 0).mean() == pytest.approx(0.8, abs=0.01)
    for name in ("dw", "pw", "q"):
        np.testing.assert_array_equal(tensors(result.model)[name], arrays[name])
    assert result.sparsity == pytest.approx(0.8, abs=0.01)


def test_a_sparsity_that_groups_forbid_is_noted() -> None:
    (report,) = prune_layers(build([node("Conv", "x", "w")], w=draw(8, 3, 3, 3)), "channel", 0.5).layers
    assert report.sparsity == pytest.approx(1 / 3) and "0.5" in report.note


def test_a_shared_weight_is_pruned_once() -> None:
    nodes = [node("MatMul", "x", "w", name="one", out="a"), node("MatMul", "a", "w", name="two")]
    result = prune_layers(build(nodes, w=draw(32, 32)), "block-column:8x8", 0.5)
    (report,) = result.layers
    assert (report.sparsity, report.note) == (0.5, "shared with two")
    assert list(tensors(result.model)) == ["w"]


@pytest.mark.parametrize("ir", [3, 10])
def test_another_reader_keeps_the_dense_weight(ir: int) -> None:
    weight = draw(32, 32)
    nodes = [node("Gather", "w", "x", name="embed", out="a"), node("MatMul", "a", "w", name="head")]
    result = prune_layers(build(nodes, ir=ir, w=weight), "unstructured", 0.5)
    found = tensors(result.model)
    np.testing.assert_array_equal(found["w"], weight)
    head = result.model.graph.node[1].input[1]
    assert head != "w" and (found[head] == 0).mean() == 0.5 and head in result.layers[0].note
    assert (head in {value.name for value in result.model.graph.input}) == (ir == 3)


def test_an_ignored_reader_keeps_the_dense_weight() -> None:
    nodes = [node("MatMul", "x", "w", name="one", out="a"), node("MatMul", "a", "w", name="two")]
    model = prune_onnx(build(nodes, w=draw(32, 32)), "unstructured", 0.5, ignore=["two"])
    assert model.graph.node[1].input[1] == "w" and (tensors(model)["w"] != 0).all()
    assert (tensors(model)[model.graph.node[0].input[1]] == 0).mean() == 0.5


@pytest.mark.parametrize(
    ("ignore", "dense"),
    [
        (["first"], {"w1"}),
        (["re:^f"], {"w1"}),
        (["w2"], {"w2"}),
        (["re:."], {"w1", "w2"}),
        ("dw", set()),
    ],
)
def test_ignore(ignore: list[str], dense: set[str]) -> None:
    nodes = [
        node("Conv", "x", "w1", name="first", out="a"),
        node("Conv", "a", "w2", name="second", out="b"),
        node("Conv", "b", "g", name="dw", group=4),
    ]
    arrays = {"w1": draw(8, 8, 1, 1), "w2": draw(8, 8, 1, 1), "g": draw(4, 1, 3, 3)}
    result = prune_layers(build(nodes, **arrays), "filter", 0.5, ignore)
    assert {name for name in ("w1", "w2") if (tensors(result.model)[name] != 0).all()} == dense
    assert {r.weight for r in result.layers if r.note == "ignored" and r.weight != "g"} == dense


def test_an_unnamed_node_goes_by_its_output() -> None:
    layer = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = build([layer], w=draw(8, 8))
    assert prune_layers(model, "filter", 0.5).layers[0].name == "y"
    assert prune_layers(model, "filter", 0.5, ["y"]).layers[0].note == "ignored"


@pytest.mark.parametrize(
    ("rule", "facts"),
    [("frst", ["frst", "did you mean first"]), ("re:^z", ["re:^z"]), ("re:[", ["re:["])],
)
def test_rules_that_match_nothing(rule: str, facts: list[str]) -> None:
    with pytest.raises(RuleError) as caught:
        prune_onnx(build([node("MatMul", "x", "w", name="first")], w=draw(8, 8)), "filter", 0.5, [rule])
    assert all(fact in str(caught.value) for fact in facts)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    weight = draw(8, 8)
    weight[3, 3] = bad
    with pytest.raises(ModelError, match="'w': 1 of 64 values are NaN or infinite"):
        prune_onnx(build([node("MatMul", "x", "w")], w=weight), "filter", 0.5)


def test_damaged_data_is_a_model_error() -> None:
    model = build([node("MatMul", "x", "w")], w=draw(8, 8))
    model.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ModelError, match="'w': "):
        prune_onnx(model, "filter", 0.5)


def test_external_data_that_was_not_loaded(tmp_path: Path) -> None:
    model = build([node("Gemm", "x", "w")], w=draw(64, 64))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelError, match=r"'w': .*another file"):
        prune_onnx(onnx.load(tmp_path / "m.onnx", load_external_data=False), "filter", 0.5)


def test_bad_scheme_and_sparsity_come_before_the_model() -> None:
    with pytest.raises(SchemeError, match="bcr"):
        prune_onnx("missing.onnx", "bcr", 0.5)
    with pytest.raises(SchemeError, match="between 0 and 1"):
        prune_onnx("missing.onnx", "bcr:8x64")


def test_what_is_no_model_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model at all")
    for source in (tmp_path / "missing.onnx", tmp_path / "bad.onnx"):
        with pytest.raises(ModelError, match=source.name):
            prune_onnx(source, "filter", 0.5)


def test_each_layer_is_reported_as_it_is_done() -> None:
    seen: list[str] = []
    nodes = [node("MatMul", "x", "w", out="a"), node("MatMul", "a", "v", name="second")]
    prune_onnx(
        build(nodes, w=draw(8, 8), v=draw(8, 8)),
        "filter",
        0.5,
        report=lambda r: seen.append(r.name),
    )
    assert seen == ["matmul", "second"]


def test_each_layer_by_the_first_rule_that_matches() -> None:
    nodes = [
        node("Gemm", "x", "a", name="first", out="t", transB=1),
        node("Gemm", "t", "b", name="second", out="u", transB=1),
        node("Gemm", "u", "c", name="third", transB=1),
    ]
    model = build(nodes, a=draw(32, 32), b=draw(32, 32, seed=1), c=draw(32, 32, seed=2))
    bcr, filters = parse("bcr:8x16"), parse("filter")
    rules = [("first", None), ("b", (bcr, 0.75)), ("re:first|second|third", (filters, 0.5))]
    result = prune_by_rules(model, rules)
    assert [(r.name, r.scheme, r.note) for r in result.layers] == [
        ("first", None, "ignored"), ("second", bcr, ""), ("third", filters, ""),
    ]  # fmt: skip
    assert [r.sparsity for r in result.layers] == pytest.approx([0, 0.75, 0.5], abs=0.01)
    assert props(result.model)["prunus.scheme"] == "bcr:8x16, filter"
    unruled = prune_by_rules(model, rules[1:2]).layers
    assert [r.scheme for r in unruled] == [None, bcr, None]
    with pytest.raises(RuleError, match="'fourth' matches no layer"):
        prune_by_rules(model, [("fourth", None)])
    assert prune_by_rules(model, [("fourth", None)], optional=["fourth"]).sparsity == 0
