"""The networks that are raced: their outputs depend on their inputs, so that comparing outputs says something."""

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("scipy")

from bench.networks import feeds, sparse


@pytest.mark.parametrize("network, scheme, sparsity", [
    ("vgg16-32", "block-column:8x64", 0.95), ("mobilenetv2", "block-column:8x64", 0.8), ("resnet18", "bcr:8x64", 0.9),
])  # fmt: skip
def test_outputs_depend_on_inputs(network: str, scheme: str, sparsity: float) -> None:
    model = sparse(network, scheme, sparsity)
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    assert any((w == 0).mean() > 0.7 for w in weights)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    one, other = (session.run(None, feeds(model, seed))[0] for seed in (0, 1))
    assert np.abs(one - other).max() > 0.02 * np.abs(one).max()
