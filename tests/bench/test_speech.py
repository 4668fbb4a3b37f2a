"""The tables of speech from rows as they are written; reading words and sounds."""

import wave
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='pip install "prunus[prune]"')

from bench.tables import recurrent  # noqa: E402

from bench import g2p, speech, spelling, streams, voice  # noqa: E402
from prunus.training.export import export_onnx  # noqa: E402


def row(key: str, **fields: object) -> dict[str, object]:
    machine = {"cpu": "c", "target": "t", "cores": 2, "l1": 0, "l2": 0, "l3": 0}
    return {"key": key, "machine": machine, "packages": {}, "date": "2026-01-01", "commit": "abc", **fields}


def trained(rate: int, *accuracies: float) -> list[dict[str, object]]:
    return [
        row(f"{rate}x seed {seed}", rate=rate, seed=seed, accuracy=accuracy, scheme="bcr:8x16")
        for seed, accuracy in enumerate(accuracies)
    ]


TIMES = row(
    speech.TIMES, us={"onnxruntime 1x": 20.0, "1x": 5.0, "10x": 4.0, "20x": 2.0},
    ratios={"1x": [3.5, 4.0, 4.5], "10x": [4.0, 5.0, 6.0], "20x": [9.0, 10.0, 11.0]},
)  # fmt: skip


def test_drops_are_from_the_mean_of_dense_networks() -> None:
    rows = [*trained(1, 0.99, 0.99, 0.96), *trained(10, 0.98, 0.98, 0.965), *trained(20, 0.96, 0.96, 0.96)]
    lines = {line.rate: line for line in speech.table(rows)}
    assert round(lines[10].drop, 6) == 0.5 and lines[20].drop > 1
    assert (lines[1].verdict, lines[20].verdict) == ("", "short")
    assert speech.table(trained(10, 0.98)) == []
    few = {line.rate: line for line in speech.table([*trained(1, 0.99), *trained(20, 0.99)])}
    assert few[20].verdict == "seeds missing"


def test_speech_table() -> None:
    text = recurrent.speech_table([*trained(1, 0.99, 0.99, 0.99), *trained(10, 0.99, 0.98, 0.99), TIMES])
    assert "| dense | 99.00% (3; 99.00% to 99.00%) | - |  |  | 5.0 | **4.0** (3.5 to 4.5) |" in text
    ten = "| bcr:8x16, 10x | 98.67% (3; 98.00% to 99.00%) | **0.33** | 0.5 | pass | 4.0 | **5.0** (4.0 to 6.0) |"
    assert ten in text
    assert "onnxruntime, dense, states fed: 20.0 us a frame" in text
    assert "| - | - |" in recurrent.speech_table(trained(1, 0.99))
    assert "Not measured yet" in recurrent.speech_table([TIMES])


def test_g2p_table() -> None:
    rows = [row("dense", rate=1, zeros=0.0, per=0.1022, words=0.685)]
    rows.append(
        row(f"{g2p.SCHEME} 4x gradual", rate=4, zeros=0.75, per=0.11, words=0.66, one_shot_per=0.5, epochs=3)
    )  # fmt: skip
    text = recurrent.g2p_table(rows)
    assert "| dense | 0.0% | **10.22%** | 68.5% | - | - |" in text
    assert f"| {g2p.SCHEME} 4x | 75.0% | **11.00%** | 66.0% | 50.0% | 3 |" in text
    assert "Not measured yet" in recurrent.g2p_table([])


def test_voice_table() -> None:
    cosines = {"prunus": 0.9999999, "onnxruntime": 1.0}
    rows = [row("10x", rate=10, cosines=cosines, to_dense=0.404, neighbours=0.725)]
    assert "| bcr:16x64, 10x | 1.000000 | 1.000000 | 0.404 | 72.5% | - | - |" in recurrent.voice_table(rows)
    assert "72.5% | 4.0 | **5.0** (4.0 to 6.0) |" in recurrent.voice_table([*rows, TIMES])
    assert "Not measured yet" in recurrent.voice_table([TIMES])


def test_words_are_read_with_all_their_pronunciations() -> None:
    phones = {"AH0": 4, "B": 5, "T": 6}
    lines = ["abbot B T", "abbot(2) AH0 B T # a variant", "o'b B", "abc T"]
    words = spelling.parse(lines, phones)
    reserved = [name for name in ("abbot", "abc") if spelling.hashlib.sha1(name.encode()).hexdigest()[0] in "01"]
    assert sorted([*words, *reserved]) == ["abbot", "abc"]
    assert words["abbot"].said == ((5, 6), (4, 5, 6))
    assert words["abbot"].letters == (3, 4, 4, 17, 22, 2)


def test_reserved_words_are_left_out() -> None:
    names = [a + b for a in "abcdefgh" for b in "ijklmnop"]
    kept = spelling.parse([f"{name} B" for name in names], {"B": 5})
    assert 0 < len(names) - len(kept) < 20
    assert all(spelling.hashlib.sha1(name.encode()).hexdigest()[0] not in "01" for name in kept)


def test_errors_are_of_the_nearest_pronunciation() -> None:
    pairs = (("abc", "abc"), ("abc", "axc"), ("abc", ""), ("kitten", "sitting"))
    assert [spelling.distance(*pair) for pair in pairs] == [0, 1, 3, 3]
    words = [spelling.Word((3, 2), ((4, 5, 6), (4, 5))), spelling.Word((4, 2), ((7, 7),))]
    assert spelling.errors(words, [(4, 5), (7,)]) == (0.25, 0.5)


def test_saying_stops_at_the_end_and_ignores_padding() -> None:
    torch.manual_seed(0)
    speller = spelling.Speller(units=8)
    words = [spelling.Word((3, 4, 2), ()), spelling.Word((5, 6, 7, 8, 9, 2), ())]
    together = spelling.say(speller, words)
    assert together == [spelling.say(speller, [word])[0] for word in words]
    with torch.no_grad():
        speller.head.bias[spelling.END] = 1e3
    assert spelling.say(speller, words) == [(), ()]


def test_retraining_learns_and_keeps_zeros() -> None:
    rng = np.random.default_rng(0)
    words = [spelling.Word((a, 2), ((int(a) + 1,),)) for a in rng.integers(3, 9, 256)]
    torch.manual_seed(0)
    speller = spelling.Speller(units=16)
    few = spelling.Words(tuple(words), tuple(words[:8]), tuple(words[:8]))
    pruner = g2p.Pruner(speller, g2p.recipe(2, 20), steps_per_epoch=-(-len(words) // g2p.BATCH))
    before = spelling.errors(words, spelling.say(speller, words))[0]
    g2p.retrain(speller, few, pruner.epochs, pruner, lambda text: None)
    assert abs(pruner.finalize().sparsity - 0.5) < 0.05
    assert spelling.errors(words, spelling.say(speller, words))[0] < before


def test_bands_have_the_area_of_one() -> None:
    bands = voice.mel_bands()
    assert bands.shape == (40, 201)
    wide = bands[20:]  # low ones are narrower than a frequency's width
    np.testing.assert_allclose(wide.sum(1) * 40, 1, atol=0.15)
    centres = bands.argmax(1)
    assert (np.diff(centres) >= 0).all() and centres[-1] > 180


def test_a_tone_is_in_its_band(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000) * 9000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(tone.astype(np.int16).tobytes())
    samples = voice.read(path)
    assert abs(20 * np.log10(np.sqrt((samples**2).mean())) + 30) < 0.01
    frames = voice.mel_frames(samples)
    assert frames.shape == (101, 40)
    loudest = frames.mean(0).argmax()
    assert voice.mel_bands()[loudest, 25] > 0, "1,000 Hz of 40 Hz each"


def test_streams_are_compared_and_timed(tmp_path: Path) -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(3, 8)

        def forward(self, x, h):  # type: ignore[no-untyped-def]
            return self.gru(x, h)

    path = tmp_path / "small.onnx"
    export_onnx(Small(), path, (torch.zeros(1, 1, 3), torch.zeros(1, 1, 8)))
    frames = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    found = streams.measure({"1x": path, "2x": path}, frames, 1, 0.01, tune="off")
    assert set(found["us"]) == {"onnxruntime 1x", "1x", "2x"} and set(found["ratios"]) == {"1x", "2x"}
    assert max(found["errors"].values()) < 1e-5
