"""Modules, ONNX files and sessions answer alike; what is no classifier is refused."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from prunus.audit.victims import of_module, open_victim
from prunus.errors import AuditError, FeedError, ModelError, UnsupportedError
from prunus.training.export import export_onnx
from tests.audit.toy import images, trained


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return trained(steps=20)


def test_alike_whoever_runs_it(network: torch.nn.Module, tmp_path: Path) -> None:
    import prunus

    export_onnx(network, tmp_path / "n.onnx", torch.zeros(2, 1, 8, 8))
    prunus.compile(str(tmp_path / "n.onnx"), tune="off", threads=1).save(tmp_path / "n.prunus")
    x = images(20, 0).x
    expected = network(x).detach()
    ways = {
        "torch": of_module(network, (1, 8, 8)), "onnx": open_victim(tmp_path / "n.onnx", 1),
        "queries": open_victim(tmp_path / "n.onnx", 1, black_box=True),
        "artefact": open_victim(tmp_path / "n.prunus", 1),
    }  # fmt: skip
    for name, victim in ways.items():
        assert (victim.shape, victim.classes) == ((1, 8, 8), 4), name
        torch.testing.assert_close(victim.logits(x), expected, atol=1e-4, rtol=1e-4, msg=name)
        assert victim.meter.images == 20
    assert [v.differentiable for v in ways.values()] == [True, True, False, False]
    assert open_victim(tmp_path / "n.onnx", 1).name == "n.onnx"


def test_the_module_is_not_touched(network: torch.nn.Module) -> None:
    network.train()
    of_module(network, (1, 8, 8)).logits(images(4, 0).x)
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    network.eval()


def test_a_fixed_batch_is_filled_up(tmp_path: Path, network: torch.nn.Module) -> None:
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(2, 1, 8, 8))
    model = onnx.load(tmp_path / "n.onnx")
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].ClearField("dim_param")
        port.type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "three.onnx")
    x = images(7, 0).x
    for black_box in (False, True):
        victim = open_victim(tmp_path / "three.onnx", 1, black_box)
        assert len(victim.logits(x)) == 7
        torch.testing.assert_close(victim.logits(x), network(x).detach(), atol=1e-4, rtol=1e-4)


def test_sizes_that_the_file_leaves_open(tmp_path: Path, network: torch.nn.Module) -> None:
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(2, 1, 8, 8))
    model = onnx.load(tmp_path / "n.onnx")
    (port,) = model.graph.input
    for axis, label in ((2, "height"), (3, "width")):
        port.type.tensor_type.shape.dim[axis].dim_param = label
    del model.metadata_props[:], model.graph.value_info[:]
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    x = images(5, 0).x
    for black_box in (False, True):
        with pytest.raises(ModelError, match=r"dimension 2 \(height\) has no value"):
            open_victim(path, 1, black_box)
        victim = open_victim(path, 1, black_box, input_shapes={port.name: (1, 1, 8, 8), "of another model": (1, 2)})
        assert (victim.shape, victim.batch) == ((1, 8, 8), None)
        torch.testing.assert_close(victim.logits(x), network(x).detach(), atol=1e-4, rtol=1e-4)
        with pytest.raises(FeedError, match=f"input shape for 'z': the model's inputs are {port.name}"):
            open_victim(path, 1, black_box, input_shapes={"z": (1, 1, 8, 8)})


def save(path: Path, nodes: list[onnx.NodeProto], shapes: dict[str, list[int]], outputs: list[str]) -> Path:
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes, "g", [p for n, p in ports.items() if n not in outputs], [ports[n] for n in outputs]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_refused(tmp_path: Path) -> None:
    add = helper.make_node("Add", ["a", "b"], ["y"])
    two = save(tmp_path / "two.onnx", [add], {"a": [1, 4], "b": [1, 4], "y": [1, 4]}, ["y"])
    with pytest.raises(AuditError, match=r"two\.onnx: 2 inputs and 1 outputs"):
        open_victim(two)
    odd = helper.make_node("Det", ["x"], ["y"], name="determinant")
    path = save(tmp_path / "odd.onnx", [odd], {"x": [4, 2, 2], "y": [4]}, ["y"])
    with pytest.raises(UnsupportedError, match=r"odd\.onnx: no gradients: .*Det.*--black-box"):
        open_victim(path)
    with pytest.raises(AuditError, match=r"answers 2 inputs with \[2, 1\], expected logits"):
        of_module(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1)), (4,))
    with pytest.raises(AuditError, match=r"answers 2 inputs with \[2, 3, 8, 8\], expected logits"):
        of_module(torch.nn.Conv2d(1, 3, 1), (1, 8, 8))  # classes of pixels
    whole = save(tmp_path / "whole.onnx", [add], {"a": [1, 4], "y": [1, 4]}, ["y"])
    model = onnx.load(whole)
    model.graph.node[0].input[1] = "a"
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, whole)
    with pytest.raises(AuditError, match=r"whole\.onnx: input 'a' is .*int64.*, expected"):
        open_victim(whole, 1, True)
    with pytest.raises(AuditError, match=r"net: doesn't take inputs of \[5\]"):
        of_module(torch.nn.Linear(4, 3), (5,), "net")
    endless = of_module(torch.nn.Linear(4, 3), (4,), "net")
    with pytest.raises(AuditError, match="net: it answers with values that aren't finite"):
        endless.logits(torch.full((1, 4), float("inf")))
