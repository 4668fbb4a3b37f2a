"""Real networks give the answers that onnxruntime gives, dense and pruned."""

import numpy as np
import onnxruntime
import pytest

import prunus
from tests.real import networks

BOUND = 1e-4  # of the largest output


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def both(model: bytes, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    session = prunus.compile(model, tune="off")
    assert not [op.name for op in session.program.ops if op.kind == "onnxruntime"], "all of it is compiled"
    engine = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0], engine.run(None, feeds)[0]


def inputs(name: str) -> tuple[bytes, np.ndarray]:
    if name == "efficientnet_lite0":
        return networks.efficientnet_lite0(), ((networks.photos(224) - 127) / 128).transpose(0, 3, 1, 2)
    model = networks.squeezenet()
    return model, (networks.photos(227)[..., ::-1] - np.float32([103.939, 116.779, 123.68])).transpose(0, 3, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_same_answers_dense(name: str) -> None:
    model, x = inputs(name)
    got, wanted = both(model, {"x": np.ascontiguousarray(x, np.float32)})
    assert difference(got, wanted) <= BOUND
    assert (got.argmax(1) == wanted.argmax(1)).all()
    assert len(set(wanted.argmax(1))) > len(wanted) / 3, "the images are told apart"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["unstructured", "bcr:8x64"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet"])
def test_same_answers_pruned(name: str, scheme: str) -> None:
    """After one-shot pruning to 30 % the same answers as onnxruntime on the same file."""
    model, x = inputs(name)
    pruned = prunus.prune_onnx(model, scheme=scheme, sparsity=0.3).SerializeToString()
    got, wanted = both(pruned, {"x": np.ascontiguousarray(x[:8], np.float32)})
    assert difference(got, wanted) <= BOUND
    assert (got.argmax(1) == wanted.argmax(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.LIGHT)
def test_light_graphs(name: str) -> None:
    model = networks.light(name)
    entry = model.graph.input[0]
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    session = prunus.compile(model, tune="off")
    engine = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = []
    for seed in (0, 1):
        feeds = {entry.name: np.random.default_rng(seed).standard_normal(shape, np.float32)}
        got, wanted = session.run(None, feeds)[0], engine.run(None, feeds)[0]
        assert difference(got, wanted) <= BOUND
        results.append(wanted)
    assert difference(results[0], results[1]) > 2 * BOUND, "the input matters more than the bound"
