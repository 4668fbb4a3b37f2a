"""Recurrent layers in torch give what the numpy oracle gives, whatever the configuration."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from tests.graph.recurrent import BATCH_FIRST, Case
from tests.graph.test_recurrent import cases, values_of
from tests.runtime.networks import onnxruntime_run
from torch import Tensor, nn

from prunus.graph.read import read
from prunus.pruning.torch_module import to_module
from prunus.pruning.torch_recurrent import recurrent


def agree(case: Case) -> None:
    model, feeds = case.build()
    graph, expected = values_of(model, feeds)
    found = to_module(graph)(*(torch.from_numpy(feeds[name]) for name in graph.inputs))
    found = found if isinstance(found, tuple) else (found,)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-4, atol=1e-5 * max(1, np.abs(wanted).max()))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_any(case: Case) -> None:
    model, feeds = case.build()
    with np.errstate(all="ignore"):
        expected = onnxruntime_run(model, feeds)
        assume(all((np.abs(a) < 100).all() for a in expected))  # relu and the like may grow without end
    agree(case)


@pytest.mark.parametrize("name", BATCH_FIRST)
def test_batch_first(name: str) -> None:
    agree(BATCH_FIRST[name])


def test_one_call_for_any_number_of_steps() -> None:
    """The network is recorded at 4 steps and fed 9; its matrices are parameters under the file's names."""
    model, _ = Case("GRU", n=2, i=3, h=5, outputs=(0,), attrs={"linear_before_reset": 1}).build()
    module = to_module(read(model))
    names = dict(module.named_parameters())
    assert set(names) == {"w", "r", "b", "b_recurrence"}
    x = torch.randn(9, 2, 3)
    twin = nn.GRU(3, 5)
    with torch.no_grad():
        for key, value in (("weight_ih_l0", names["w"]), ("weight_hh_l0", names["r"]), ("bias_ih_l0", names["b"])):
            z, r, n = value.chunk(3)
            getattr(twin, key).copy_(torch.cat([r, z, n]))
        twin.bias_hh_l0.zero_()
        twin.bias_hh_l0[10:] = names["b_recurrence"]
    assert [node.target for node in module.graph.nodes].count(recurrent) == 1
    expected: Tensor = twin(x)[0]
    torch.testing.assert_close(module(x)[:, 0], expected)
