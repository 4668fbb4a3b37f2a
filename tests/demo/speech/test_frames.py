"""Engines fed frame by frame."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='pip install "prunus[prune]"')

from prunus.compiler.compile import compile  # noqa: E402
from prunus.demo.speech.frames import Handed, Kept, play, race  # noqa: E402
from prunus.training.export import export_onnx  # noqa: E402


class Two(torch.nn.Module):
    """An LSTM, which has two states to hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(5, 8, 2)

    def forward(self, x, h, c):  # type: ignore[no-untyped-def]
        y, (h, c) = self.lstm(x, (h, c))
        return 2 * y, h, c


def test_engines_are_whole_sequences_in_torch(tmp_path: Path) -> None:
    network, path, zeros = Two().eval(), tmp_path / "two.onnx", torch.zeros(2, 1, 8)
    export_onnx(network, path, (torch.zeros(1, 1, 5), zeros, zeros.clone()))
    frames = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(frames)[:, None], zeros, zeros)[0][:, 0].numpy()
    streams = {"kept": Kept(compile(path, threads=1, tune="off", streaming=True)), "handed": Handed(path, 1)}
    for name, stream in streams.items():
        for _ in range(2):  # a recording begins anew
            np.testing.assert_allclose(play(stream, frames), expected, atol=1e-6, err_msg=name)
    times = race(streams, frames, 0.01)
    assert set(times) == set(streams) and all(found.median_s > 0 for found in times.values())
