"""Networks opened in torch for timing; that engines agree is tested with the race."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.runtime.networks import NETWORKS, feeds_for, onnxruntime_run

from prunus.errors import ToolchainError, UnsupportedError
from prunus.pruning.torch_inference import open_in_torch


def test_several_outputs_in_order_and_no_gradients(tmp_path: Path) -> None:
    model = NETWORKS["two_ports"]("N")
    onnx.save(model, tmp_path / "m.onnx")
    feeds = feeds_for(model, batch=2)
    run = open_in_torch(tmp_path / "m.onnx", {name: a.shape for name, a in feeds.items()}, 1, compiled=False)
    assert torch.get_num_threads() == 1
    for got, wanted in zip(run(dict(reversed(feeds.items()))), onnxruntime_run(model, feeds), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    import torch._inductor.config as config

    onnx.save(NETWORKS["classifier"](), tmp_path / "m.onnx")
    with (
        config.patch({"cpp.cxx": ("/nowhere/quince++",), "force_disable_caches": True}),
        pytest.raises(ToolchainError, match=r"torch\.compile: .") as found,
    ):
        open_in_torch(tmp_path / "m.onnx", {}, 1, compiled=True)
    assert "\n" not in str(found.value)


def test_what_has_no_torch_form_is_named(tmp_path: Path) -> None:
    onnx.save(NETWORKS["partitioned"](), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="LRN"):
        open_in_torch(tmp_path / "m.onnx", {}, 1, compiled=False)


@pytest.mark.slow
def test_compiled_weights_are_frozen(tmp_path: Path) -> None:
    """They are packed for oneDNN, as an engine would do; freezing had no effect as an option of torch.compile."""
    model = NETWORKS["residual"]()
    onnx.save(model, tmp_path / "m.onnx")
    feeds = feeds_for(model)
    run = open_in_torch(tmp_path / "m.onnx", {}, 1, compiled=True)
    with torch.profiler.profile() as profile:
        (found,) = run(feeds)
    kinds = {event.key for event in profile.key_averages()}
    assert any(kind.startswith("mkldnn::_convolution_pointwise") for kind in kinds), kinds
    np.testing.assert_allclose(found, onnxruntime_run(model, feeds)[0], atol=1e-5)
