"""The public call: without calibration it does what the data-free one does, and needs no torch for it."""

import subprocess
import sys

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

import prunus
from prunus.pruning import one_shot

CODE = """
import sys
import numpy as np
sys.modules["torch"] = None
import prunus
from tests.training.test_calibrated import model
prunus.prune_onnx(model(), "filter", 0.5)
try:
    prunus.prune_onnx(model(), "filter", 0.5, calibration=[{"x": np.zeros((1, 8), np.float32)}])
except ImportError as error:
    print(type(error).__name__)
"""


def model() -> ModelProto:
    w = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s]) for n, s in (("x", 8), ("y", 16))]
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", transB=1)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(w, "w")])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_without_data_it_is_the_data_free_call() -> None:
    ours, plain = prunus.prune_onnx(model(), "filter", 0.5), one_shot.prune_onnx(model(), "filter", 0.5)
    assert ours.SerializeToString() == plain.SerializeToString()


def test_torch_is_needed_for_calibration_only() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "MissingExtraError", done.stderr
