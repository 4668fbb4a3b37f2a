"""A voice as a vector: Resemblyzer's three LSTM layers of 256, dense and pruned without retraining, frame by frame.

    PRUNUS_DATA=folder python -m bench.voice [--only TEXT ...] [--time SECONDS] [--again] [--list]

Needs pip install --no-deps resemblyzer==0.1.4, and Debian's asterisk-core-sounds-en-wav, -es-wav and -fr-wav, in
/usr/share or unpacked below $PRUNUS_DATA. Appends to bench/results/voice.jsonl; a row that was measured at this commit
is skipped, unless --again. The data have two speakers or three: what is reported is agreement, not recognition.
"""

import importlib.util
import os
import sys
import wave
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import prunus
from bench import store, streams, tasks
from prunus.demo.speech.frames import Frames, Handed, Kept, Stream, play
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "voice.jsonl"
KEPT = store.ROOT / "out" / "voice"
FOLDERS = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June")
N_CLIPS, LEAST_BYTES = 40, 48_000  # of a folder, the first ones that are long enough
WINDOW, STEP = 160, 80  # frames of 10 ms
N_STREAMED = 20  # windows that are also fed frame by frame
SCHEME, RATES = "bcr:16x64", (1, 2, 4, 10)
TIMES = "frames, 1 threads"


class Voice(nn.Module):
    """What the voice is like, after each frame; of a window the last answer counts, at length 1."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(40, 256, 3), nn.Linear(256, 256)
        kept = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({name: kept[name] for name in self.state_dict()})

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float[t, n, 256] and the states; x: float[t, n, 40], h and c: float[3, n, 256]."""
        y, (h, c) = self.lstm(x, (h, c))
        return self.linear(y).relu(), h, c


def weights() -> Path | None:
    """Resemblyzer's file; None where it isn't installed."""
    found = importlib.util.find_spec("resemblyzer")
    return Path(found.submodule_search_locations[0]) / "pretrained.pt" if found is not None else None  # type: ignore[index]


def sounds() -> Path | None:
    """Where the prompts are; None where one of the folders isn't."""
    roots = [Path("/"), Path(os.environ.get("PRUNUS_DATA", "/nowhere"))]
    found = (root / "usr/share/asterisk/sounds" for root in roots)
    return next((path for path in found if all((path / name).is_dir() for name in FOLDERS)), None)


def read(path: Path) -> NDArray[np.float64]:
    """A recording of 8 kHz at 16 kHz, at -30 dBFS."""
    from scipy.signal import resample_poly

    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000 and file.getnchannels() == 1, path
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768.0
    samples = resample_poly(samples, 2, 1)
    return samples * 10 ** (-30 / 20) / max(float(np.sqrt((samples**2).mean())), 1e-9)


def mel_frames(samples: NDArray[np.float64]) -> Frames:
    """float32[t, 40]: power in bands of the mel scale, of 400 samples each 160."""
    padded = np.pad(samples, 200)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(pieces * hann)) ** 2
    return (power @ mel_bands().T).astype(np.float32)


def mel_bands(n: int = 40, rate: int = 16000, size: int = 400) -> NDArray[np.float64]:
    """float64[n, size / 2 + 1]: triangles of area 1 on Slaney's scale, linear to 1 kHz, then logarithmic."""
    octave = np.log(6.4) / 27
    top = 15 + np.log(rate / 2 / 1000) / octave
    mels = np.linspace(0, top, n + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(octave * (mels - 15)))
    found = np.arange(size // 2 + 1) * rate / size
    rising = (found - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - found) / np.diff(edges)[1:, None]
    triangles = np.clip(np.minimum(rising, falling), 0, None)
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]


@dataclass(frozen=True, eq=False)
class Clips:
    """windows: float32[n, 160, 40]; clip: int64[n], which recording each belongs to; folder: int64[clips]."""

    windows: Frames
    clip: NDArray[np.int64]
    folder: NDArray[np.int64]


def load_clips(root: Path, n_clips: int = N_CLIPS) -> Clips:
    """The first recordings of each folder that are long enough."""
    windows, clip, folder = [], [], []
    for index, name in enumerate(FOLDERS):
        long = [path for path in sorted((root / name).rglob("*.wav")) if path.stat().st_size > LEAST_BYTES]
        for path in long[:n_clips]:
            frames = mel_frames(read(path))
            found = [frames[i : i + WINDOW] for i in range(0, len(frames) - WINDOW + 1, STEP)]
            windows += found
            clip += [len(folder)] * len(found)
            folder.append(index)
    return Clips(np.stack(windows), np.array(clip), np.array(folder))


def unit(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@torch.no_grad()
def embed(voice: Voice, windows: Frames) -> NDArray[np.float64]:
    """float64[n, 256], of length 1, whole windows in torch."""
    found = []
    for part in torch.from_numpy(windows).split(100):
        zeros = torch.zeros(3, len(part), 256)
        found.append(voice(part.transpose(0, 1), zeros, zeros)[0][-1].numpy())
    return unit(np.concatenate(found))


def neighbours(vectors: NDArray[np.float64], clips: Clips) -> float:
    """Share of recordings whose nearest one is in the same folder."""
    means = unit(np.stack([vectors[clips.clip == i].mean(0) for i in range(len(clips.folder))]))
    alike = means @ means.T
    np.fill_diagonal(alike, -1)
    return float((clips.folder[alike.argmax(1)] == clips.folder).mean())


def prepare(rate: int, source: Path) -> tuple[Voice, Path, float]:
    """The network at a rate, its file and its zeros."""
    voice, zeros, path = Voice(source).eval(), 0.0, KEPT / f"{rate}x.onnx"
    state = torch.zeros(3, 1, 256)
    example = (torch.zeros(1, 1, 40), state, state.clone())
    if rate == 1:
        export_onnx(voice, path, example)
    else:
        rule = {"match": "lstm", "scheme": SCHEME, "sparsity": 1 - 1 / rate}
        pruner = Pruner(voice, {"method": "one-shot", "layers": [rule]}, example)
        zeros = pruner.finalize().sparsity
        pruner.export(path)
    return voice, path, zeros


def measure(rate: int, source: Path, root: Path) -> store.Row:
    """Agreement of engines with torch, and of the pruned network with the dense one: cosines."""
    clips = load_clips(root)
    voice, path, zeros = prepare(rate, source)
    vectors, dense = embed(voice, clips.windows), embed(Voice(source).eval(), clips.windows)
    every = max(1, len(clips.windows) // N_STREAMED)
    own = Kept(prunus.compile(path, threads=1, streaming=True))
    engines: dict[str, Stream] = {"prunus": own, "onnxruntime": Handed(path, 1)}
    cosines = {}
    for name, stream in engines.items():
        found = unit(np.stack([play(stream, window)[-1] for window in clips.windows[::every]]))
        cosines[name] = round(float((found * vectors[::every]).sum(1).min()), 7)
    return {
        "rate": rate, "zeros": round(zeros, 4), "windows": len(clips.windows), "streamed": len(clips.windows[::every]),
        "cosines": cosines, "to_dense": round(float((vectors * dense).sum(1).mean()), 4),
        "neighbours": round(neighbours(vectors, clips), 4), "clips": len(clips.folder),
    }  # fmt: skip


def measure_times(source: Path, root: Path, time_s: float) -> store.Row:
    """A window through the network at each rate."""
    files = {f"{rate}x": prepare(rate, source)[1] for rate in RATES}
    return streams.measure(files, load_clips(root, 1).windows[0], 1, time_s)


def table(rows: list[store.Row]) -> tuple[list[store.Row], store.Row | None]:
    """Rows of agreement in order of rates; and the one of times, if there is one."""
    found = store.latest(rows)
    return [found[f"{rate}x"] for rate in RATES if f"{rate}x" in found], found.get(TIMES)


def main() -> int:
    """Measure what is missing."""
    arguments = tasks.parse(__doc__, 3.0)
    source, root = weights(), sounds()
    if source is None or root is None:
        absent = (
            "resemblyzer: pip install --no-deps resemblyzer==0.1.4" if source is None else "the prompts of asterisk"
        )
        print(f"not there: {absent}; see python -m bench.voice --help")
        return 1
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    rows = [tasks.Task(f"{rate}x", {}, lambda _, rate=rate: measure(rate, source, root)) for rate in RATES]
    rows.append(tasks.Task(TIMES, {}, partial(measure_times, source, root)))
    return tasks.run(rows, RESULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
