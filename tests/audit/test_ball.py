"""Projections: inside, nearest, and nothing but the range cut off."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.audit.ball import NORMS, Ball, size
from prunus.errors import AuditError

numbers = st.lists(st.floats(-5, 5, width=32), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(values=numbers, eps=st.floats(0.01, 3), norm=st.sampled_from(NORMS))
def test_projected_is_inside_idempotent_and_nearest(values: list[float], eps: float, norm: str) -> None:
    ball = Ball(eps, norm)  # type: ignore[arg-type]
    delta = torch.tensor(values).reshape(2, 1, 2, 3)
    found = ball.project(delta)
    assert (size(found, ball.norm) <= eps * (1 + 1e-5)).all()
    torch.testing.assert_close(ball.project(found), found, atol=1e-6, rtol=1e-5)
    inside = size(delta, ball.norm) <= eps
    torch.testing.assert_close(found[inside], delta[inside])
    other = ball.project(torch.zeros_like(delta).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)))
    assert ((delta - found).flatten(1).norm(dim=1) <= (delta - other).flatten(1).norm(dim=1) + 1e-5).all()


@settings(max_examples=60, deadline=None)
@given(values=numbers, low=st.floats(-1, 0), width=st.floats(0.1, 2))
def test_perturbed_inputs_stay_in_the_range(values: list[float], low: float, width: float) -> None:
    ball = Ball(1.0, "linf", low, low + width)
    x = torch.linspace(low, low + width, 24).reshape(2, 2, 6)
    found = ball.add(x, torch.tensor(values).reshape(2, 6))
    assert (found >= low - 1e-6).all() and (found <= low + width + 1e-6).all()
    outside = x + 10
    assert torch.equal(ball.add(outside, torch.zeros(2, 6)), outside)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.1, "l7"), "'l7'"),
        ((0.0,), "eps 0"),
        ((-1.0,), "eps -1"),
        ((float("nan"),), "eps nan"),
        ((0.1, "linf", 1, 0), "range 1,0"),
    ],
)
def test_refused(arguments: tuple[float, ...], said: str) -> None:
    with pytest.raises(AuditError, match=said):
        Ball(*arguments)  # type: ignore[arg-type]
