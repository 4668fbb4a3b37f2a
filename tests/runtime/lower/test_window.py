"""Pooling of whole planes, several to a task: means and maxima against numpy."""

import numpy as np
import pytest

from prunus.compiler.compile import compile
from tests.runtime.networks import Net, feeds_for


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("height, width", [(7, 7), (3, 16), (5, 19), (2, 1)])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_planes_of_a_task_and_the_rest(op: str, height: int, width: int, threads: int) -> None:
    net = Net({"x": (2, 37, height, width)})
    model = net.model(net.add(op, net.add("Neg", "x")))
    feeds = feeds_for(model)
    (found,) = compile(model, threads=threads, tune="off").run(None, feeds)
    whole = {"GlobalAveragePool": np.mean, "GlobalMaxPool": np.max}[op]
    np.testing.assert_allclose(found, whole(-feeds["x"], axis=(2, 3), keepdims=True), rtol=1e-5, atol=1e-6)
