"""Masked least squares against numpy's, filter by filter."""

import numpy as np
import pytest
import torch

from prunus.training.reconstruct import solve as solving
from prunus.training.reconstruct.solve import solve


def problem(o: int, k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((k, 3 * k))
    return torch.from_numpy(x @ x.T), torch.from_numpy(rng.standard_normal((o, k)))


@pytest.mark.parametrize("room", [1, 200, 1 << 22])
@pytest.mark.parametrize("shared", [False, True])
def test_each_filter_is_solved_on_its_own(room: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "ROOM", room)
    h, g = problem(9, 13)
    mask = np.random.default_rng(1).random((9, 13)) < 0.5
    mask[3], mask[4] = False, True
    if shared:
        mask[6:] = mask[0]
    found = solve(h, g, mask).numpy()
    for row, kept in enumerate(mask):
        expected = np.zeros(13)
        if kept.any():
            expected[kept] = np.linalg.solve(h.numpy()[np.ix_(kept, kept)], g.numpy()[row, kept])
        np.testing.assert_allclose(found[row], expected, rtol=1e-10, atol=1e-12)
        assert (found[row][~kept] == 0).all()


def test_a_matrix_without_columns() -> None:
    assert solve(torch.zeros(0, 0).double(), torch.zeros(3, 0).double(), np.zeros((3, 0), bool)).shape == (3, 0)
