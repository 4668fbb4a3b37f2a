"""Speech from end to end: train a GRU, prune it to a tenth, export, compile, and listen frame by frame."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.benchmark.agreement import difference
from prunus.benchmark.timing import Ratio, Times, speed_ratio
from prunus.compiler.compile import compile
from prunus.demo.picture import block_text, png_bytes
from prunus.demo.speech.data import Part, Spoken, load_spoken
from prunus.demo.speech.frames import Handed, Kept, Stream, play, race
from prunus.demo.speech.train import (
    COEFFICIENTS,
    Listener,
    Schedule,
    accuracy,
    silence,
    steps_per_epoch,
    train,
)
from prunus.demo.story import Progress
from prunus.errors import DisagreementError, OutputError
from prunus.runtime.atomic import write_atomically
from prunus.runtime.session import Session, check_threads
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner
from prunus.training.recipe import Epochs, Recipe, Rule

ERROR = 1e-4  # largest difference over largest answer, against onnxruntime
PICTURED = "gru.weight_hh_l0"
DENSE = Schedule(20, 3e-3)
RECIPE = Recipe(
    method="gradual",
    epochs=Epochs(sparsify=8, recover=32),
    layers=(Rule(match="gru", scheme="bcr:8x16", sparsity=0.9),),
)
SPARSE_RATE = 6e-3


@final
@dataclass(frozen=True)
class Plan:
    """How long to train, the recipe and its learning rate, how long to time each stream."""

    dense: Schedule = DENSE
    recipe: Recipe = RECIPE
    rate: float = SPARSE_RATE
    time_s: float = 3.0
    n_train: int | None = None  # recordings to train on; None: all
    tune: str = "fast"

    @classmethod
    def quick(cls) -> Self:
        """All steps, hardly any training: for tests."""
        short = RECIPE.model_copy(update={"epochs": Epochs(sparsify=1, recover=1)})
        return cls(Schedule(1, 3e-3), short, 3e-3, 0.1, 128, "off")


@final
@dataclass(frozen=True)
class SpeechRow:
    """One network. sparsity: of the GRU. accuracy: of the compiled network fed frame by frame, over the recordings kept
    for that; torch_accuracy: of whole recordings in torch. Microseconds are medians per frame.
    """

    name: str
    sparsity: float
    accuracy: float
    torch_accuracy: float
    onnx_bytes: int
    artefact_bytes: int
    prunus_us: float
    onnxruntime_us: float


@final
@dataclass(frozen=True)
class SpeechStory:
    """What happened; `summary` in words. difference: between the engines' answers to the recordings, over the largest.
    heard: of one recording its digit, and what the pruned network took it for after each frame. against_onnxruntime:
    pruned here, dense there.
    """

    threads: int
    rows: tuple[SpeechRow, ...]
    difference: float
    against_onnxruntime: Ratio
    digit: int
    heard: tuple[int, ...]
    seconds: float
    mask_layer: str
    mask_picture: str
    summary: tuple[str, ...]


@final
@dataclass(frozen=True, eq=False)
class _Model:
    """A trained network, compiled, and the same file in onnxruntime."""

    name: str
    path: Path
    sparsity: float
    torch_accuracy: float
    own: Kept
    other: Handed
    answers: list[NDArray[Any]]
    difference: float


def run_speech(
    folder: Path,
    plan: Plan,
    threads: int | None = None,
    cc: str | None = None,
    progress: Progress = lambda step: None,
    spoken: Spoken | None = None,
) -> SpeechStory:
    """Do it all and write dense.onnx, sparse.onnx, their .prunus, mask.png and speech.json.

    threads: in training all cores and in the engines one, where nothing is said: a frame is too little for two.
    Raises PrunusError: no data, no C compiler, a folder that can't be written.
    """
    start = time.perf_counter()
    n_cores, n_threads = check_threads(threads), 1 if threads is None else check_threads(threads)
    spoken = spoken or load_spoken()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror}") from error
    torch.set_num_threads(n_cores)
    if plan.n_train is not None:
        cut = Part(spoken.train.frames[: plan.n_train], spoken.train.labels[: plan.n_train])
        spoken = replace(spoken, train=cut)

    dense = Listener()
    train(dense, spoken.train, plan.dense, progress=_within("training dense", progress))
    sparse = Listener()
    sparse.load_state_dict(dense.state_dict())
    example = (torch.zeros(1, 1, COEFFICIENTS), silence())
    pruner = Pruner(sparse, plan.recipe, example, steps_per_epoch(spoken.train))
    schedule = Schedule(pruner.epochs, plan.rate)
    train(sparse, spoken.train, schedule, pruner, dense, _within("pruned, retraining", progress), seed=1)
    report = pruner.finalize()
    export_onnx(dense, folder / "dense.onnx", example)
    pruner.export(folder / "sparse.onnx")
    scheme, mask = report.layers[0].scheme, pruner.masks[PICTURED]
    block = (scheme.block[0], scheme.block[1]) if scheme and len(scheme.block) == 2 else None
    write_atomically(folder / "mask.png", png_bytes(mask, block))

    models = []
    for name, network, sparsity in (("dense", dense, 0.0), ("sparse", sparse, report.sparsity)):
        progress(f"compiling the {name} network")
        path = folder / f"{name}.onnx"
        session = compile(path, threads=n_threads, tune=plan.tune, cc=cc, streaming=True)
        session.save(path.with_suffix(".prunus"))
        models.append(_listen(name, path, session, sparsity, accuracy(network, spoken.test), spoken.test, n_threads))
    worst = max(model.difference for model in models)
    if not worst <= ERROR:
        raise DisagreementError(f"answers differ from onnxruntime's by {worst:.1e} of the largest")
    index = _typical(spoken.test)
    streams: dict[str, Stream] = {}
    for model in models:
        streams |= {f"{model.name} prunus": model.own, f"{model.name} onnxruntime": model.other}
    times = race(streams, spoken.test.frames[index], plan.time_s, _within("timing", progress))
    rows = tuple(_row(model, spoken.test, times) for model in models)
    ratio = speed_ratio(times["sparse prunus"], times["dense onnxruntime"])
    story = SpeechStory(
        n_threads, rows, worst, ratio, int(spoken.test.labels[index]), so_far(models[1].answers[index]),
        time.perf_counter() - start, PICTURED, block_text(mask),
        tuple(_summary(rows, spoken, worst, ratio, n_threads)),
    )  # fmt: skip
    write_atomically(folder / "speech.json", (json.dumps(asdict(story), indent=2) + "\n").encode())
    return story


def so_far(answers: NDArray[Any]) -> tuple[int, ...]:
    """The digit that a recording is taken for after each frame; answers: float32[t, 10] to the frames."""
    return tuple(int(digit) for digit in answers.cumsum(0).argmax(1))


def _listen(
    name: str, path: Path, session: Session, sparsity: float, torch_accuracy: float, part: Part, threads: int
) -> _Model:
    """Feed all recordings to both engines."""
    own, other = Kept(session), Handed(path, threads)
    answers = [play(own, frames) for frames in part.frames]
    expected = [play(other, frames) for frames in part.frames]
    off = difference([np.concatenate(answers)], [np.concatenate(expected)])
    return _Model(name, path, sparsity, torch_accuracy, own, other, answers, off)


def _typical(part: Part) -> int:
    """The recording of median length, the first of these."""
    lengths = np.array([len(frames) for frames in part.frames])
    return int(np.argsort(lengths, kind="stable")[len(lengths) // 2])


def _row(model: _Model, part: Part, times: Mapping[str, Times]) -> SpeechRow:
    right = [so_far(answers)[-1] == label for answers, label in zip(model.answers, part.labels, strict=True)]
    own, other = (times[f"{model.name} {engine}"].median_s * 1e6 for engine in ("prunus", "onnxruntime"))
    return SpeechRow(
        model.name, model.sparsity, float(np.mean(right)), model.torch_accuracy, model.path.stat().st_size,
        model.path.with_suffix(".prunus").stat().st_size, own, other,
    )  # fmt: skip


def _summary(rows: tuple[SpeechRow, ...], spoken: Spoken, worst: float, ratio: Ratio, threads: int) -> list[str]:
    dense, sparse = rows
    return [
        f"spoken digits: {len(spoken.train.labels)} recordings to train on and {len(spoken.test.labels)} to test with; "
        f"accuracy {dense.accuracy:.2%} -> {sparse.accuracy:.2%} with {sparse.sparsity:.1%} of the GRU's weights gone",
        f"Prunus {dense.prunus_us:.1f} -> {sparse.prunus_us:.1f} us a frame, ONNX Runtime {dense.onnxruntime_us:.1f} "
        f"-> {sparse.onnxruntime_us:.1f} us ({threads} thread(s), frame by frame, medians)",
        f"the pruned network in Prunus is {ratio.median:.1f} times as fast as the dense one in ONNX Runtime (quartiles "
        f"{ratio.lower:.1f}..{ratio.upper:.1f}); answers of the engines differ by {worst:.0e} of the largest",
    ]


def _within(what: str, progress: Progress) -> Progress:
    return lambda step: progress(f"{what}: {step}")
