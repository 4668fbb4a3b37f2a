"""A loaded network is in memory once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prunus
from tests.runtime.networks import Net

LOAD = """
import sys, os, numpy, prunus, prunus.runtime.session, hashlib, json, mmap
from prunus.benchmark.footprint import peak_bytes
x = numpy.ones((1, 64, 40, 40), numpy.float32)
base = peak_bytes()
session = prunus.load(sys.argv[1], threads=1)
session.run(None, {"x": x})
print(peak_bytes() - base, os.path.getsize(sys.argv[1]) + session.memory()["arena"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("scheme, bound", [(None, 1.1), ("block-column:8x64", 1.3), ("unstructured", 1.9)])
def test_peak_of_load_and_run(tmp_path: Path, scheme: str | None, bound: float) -> None:
    """So many times the artefact and the arena; unstructured zeros have an offset for every weight."""
    net = Net({"x": (1, 64, 40, 40)})
    wide = net.add("Relu", net.add("Conv", "x", net.weight(256, 64, 3, 3, zeros=0), pads=[1] * 4))
    flat = net.add("Flatten", net.add("MaxPool", wide, kernel_shape=[4, 4], strides=[4, 4]))
    model = net.model(net.add("Gemm", flat, net.weight(1024, 25600, zeros=0), transB=1))
    model = prunus.prune_onnx(model, scheme=scheme, sparsity=0.9) if scheme else model
    path = tmp_path / "net.prunus"
    prunus.compile(model, tune="off", threads=1).save(path)
    assert path.stat().st_size > 10e6
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    peak, held = (int(part) for part in done.stdout.split())
    assert held * 0.5 < peak < bound * held + 1e6, "1 MB for numpy's own"


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    net = Net({"x": (1, 3, 8, 8)})
    session = prunus.compile(net.model(net.conv("x", 8, 3)), tune="off")
    session.save(tmp_path / "net.prunus")
    loaded = prunus.load(tmp_path / "net.prunus")
    for array in loaded.program.constants.values():
        assert np.shares_memory(array, loaded.constants) or array.size == 0
