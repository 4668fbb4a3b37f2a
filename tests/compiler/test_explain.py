"""`explain` names the scheme of each layer's zeros, and tells candidates apart."""

import onnx
import pytest

from prunus.compiler.compile import compile
from prunus.pruning.one_shot import prune_onnx
from prunus.sparsity.schemes import SCHEMES
from tests.runtime.networks import Net

TEXTS = {"n:m": "2:4", "pattern": "pattern:4", "punched": "punched:4x4", "bcr": "bcr:8x32"}


def network() -> onnx.ModelProto:
    net = Net({"x": (1, 32, 6, 6)})
    return net.model(net.add("Conv", "x", net.weight(48, 32, 3, 3, zeros=0), pads=[1] * 4))


@pytest.mark.parametrize("name", sorted(SCHEMES))
@pytest.mark.parametrize("stated", [True, False])
def test_names_the_scheme(name: str, stated: bool) -> None:
    text = TEXTS.get(name, name if name in ("filter", "channel", "unstructured") else f"{name}:8x32")
    model = prune_onnx(network(), scheme=text, sparsity=0.5 if name == "n:m" else 0.8)
    if not stated:
        del model.metadata_props[:]
    row = compile(model, tune="off", threads=1).explain()[0]
    assert row.scheme == text or (name in ("block-row", "block-column") and row.scheme.startswith(name))


def test_a_stated_scheme_that_the_zeros_do_not_obey_is_not_believed() -> None:
    model = prune_onnx(network(), scheme="unstructured", sparsity=0.5)
    next(prop for prop in model.metadata_props if prop.key == "prunus.scheme").value = "bcr:8x32"
    assert compile(model, tune="off", threads=1).explain()[0].scheme == "unstructured"


def test_stated_nonsense_is_passed_over() -> None:
    model = prune_onnx(network(), scheme="filter", sparsity=0.5)
    next(prop for prop in model.metadata_props if prop.key == "prunus.scheme").value = "nonsense"
    assert compile(model, tune="off", threads=1).explain()[0].scheme == "filter"


def test_candidates_have_names_of_their_own() -> None:
    row = compile(network(), tune="fast", threads=1).explain()[0]
    names = [row.kernel, *(name for name, _ in row.refused)]
    assert len(names) > 4 and len(set(names)) == len(names)
