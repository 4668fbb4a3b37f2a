"""The main job from end to end: train, prune to 90 %, export, compile, compare with ONNX Runtime."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunus.benchmark.agreement import difference
from prunus.benchmark.engines import open_engine
from prunus.benchmark.race import Result, benchmark, paired_ratio
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import Ratio
from prunus.compiler.compile import compile
from prunus.demo.data import Images, load_images
from prunus.demo.picture import block_text, png_bytes
from prunus.demo.train import EXAMPLE, Schedule, make_network, recipe, steps_per_epoch, train
from prunus.errors import DisagreementError, OutputError
from prunus.runtime.atomic import write_atomically
from prunus.runtime.session import Session, check_threads
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner
from prunus.training.recipe import Recipe

Progress = Callable[[str], None]


DENSE = Schedule(5, 3e-3)
RECIPE = recipe("bcr:8x64", 2, 4)
SPARSE_RATE = 2e-3


@final
@dataclass(frozen=True)
class Plan:
    """How long to train, the recipe and its learning rate, how long to time each model in each engine."""

    dense: Schedule = DENSE
    recipe: Recipe = RECIPE
    rate: float = SPARSE_RATE
    n_images: int | None = None  # of the training set; None: all
    time_s: float = 3.0

    @classmethod
    def quick(cls) -> Self:
        """All steps, hardly any training: for tests."""
        return cls(Schedule(1, 3e-3), recipe("bcr:8x64", 0, 1), n_images=256, time_s=0.2)


@final
@dataclass(frozen=True)
class StoryRow:
    """One model. sparsity: of the pruned layers. accuracy: of the compiled artefact on the test
    images. Times are medians at batch 1.
    """

    name: str
    sparsity: float
    accuracy: float
    torch_accuracy: float
    onnx_bytes: int
    artefact_bytes: int
    prunus_ms: float
    onnxruntime_ms: float
    against_onnxruntime: Ratio


@final
@dataclass(frozen=True)
class Story:
    """What happened; `summary` in words. difference: between the engines' outputs on the test
    images, over the largest output.
    """

    data: str
    scheme: str
    threads: int
    rows: tuple[StoryRow, ...]
    difference: float
    seconds: float
    mask_layer: str
    mask_picture: str
    summary: tuple[str, ...]


@final
@dataclass(frozen=True, eq=False)
class _Model:
    """A trained model on its way to its row; sessions and outputs of the test images."""

    name: str
    path: Path
    sparsity: float
    torch_accuracy: float
    session: Session
    outputs: NDArray[np.float32]


def run_demo(
    folder: Path,
    plan: Plan,
    data: str | None = None,
    threads: int | None = None,
    cc: str | None = None,
    progress: Progress = lambda step: None,
) -> Story:
    """Do it all and write dense.onnx, sparse.onnx, their .prunus, mask.png and demo.json.

    Raises PrunusError: no data, no C compiler, a folder that can't be written.
    """
    start = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror}") from error
    n_threads = check_threads(threads)
    torch.set_num_threads(n_threads)
    images = load_images(data)
    if plan.n_images is not None:
        cut = plan.n_images
        images = replace(images, train_x=images.train_x[:cut], train_y=images.train_y[:cut])
    network = make_network()
    train(network, images, plan.dense, progress=_within("training dense", progress))
    export_onnx(network, folder / "dense.onnx", EXAMPLE)
    dense = _finish("dense", network, folder, images, 0.0, n_threads, cc, progress)
    pruner = Pruner(network, plan.recipe, EXAMPLE, steps_per_epoch(images))
    schedule = Schedule(pruner.epochs, plan.rate)
    train(network, images, schedule, pruner, _within("pruned, retraining", progress), seed=1)
    report = pruner.finalize()
    pruner.export(folder / "sparse.onnx")
    sparse = _finish("sparse", network, folder, images, report.sparsity, n_threads, cc, progress)
    masks = pruner.masks
    layer = max(masks, key=lambda name: masks[name].size if masks[name].ndim == 4 else 0)
    scheme = next(found.scheme for found in report.layers if found.scheme)
    block = (scheme.block[0], scheme.block[1]) if len(scheme.block) == 2 else None
    write_atomically(folder / "mask.png", png_bytes(masks[layer], block))
    result = benchmark(
        [dense.path, sparse.path], ["prunus", "onnxruntime"], Setting(n_threads, cc=cc),
        time_s=plan.time_s, warmup_s=plan.time_s / 5, footprints=False,
        progress=_within("timing", progress),
    )  # fmt: skip
    if result.mismatches:
        raise DisagreementError("; ".join(result.mismatches))
    rows = (_row(dense, images, result), _row(sparse, images, result))
    worst = max(_against_onnxruntime(model, images, n_threads) for model in (dense, sparse))
    seconds = time.perf_counter() - start
    story = Story(
        images.name, str(scheme), n_threads, rows, worst, seconds, layer,
        block_text(masks[layer]), tuple(_summary(rows, images, worst, n_threads)),
    )  # fmt: skip
    write_atomically(folder / "demo.json", (json.dumps(asdict(story), indent=2) + "\n").encode())
    return story


def _finish(
    name: str,
    network: nn.Sequential,
    folder: Path,
    images: Images,
    sparsity: float,
    threads: int,
    cc: str | None,
    progress: Progress,
) -> _Model:
    """Compile, save and run one model."""
    progress(f"compiling the {name} network")
    path = folder / f"{name}.onnx"
    session = compile(path, threads=threads, cc=cc)
    session.save(path.with_suffix(".prunus"))
    outputs = np.concatenate([session.run(None, {"x": x})[0] for x in _batches(images.test_x)])
    with torch.no_grad():
        expected = network(torch.from_numpy(images.test_x)).argmax(1).numpy()
    accuracy = float((expected == images.test_y).mean())
    return _Model(name, path, sparsity, accuracy, session, outputs)


def _batches(x: NDArray[np.float32], size: int = 100) -> list[NDArray[np.float32]]:
    return [x[i : i + size] for i in range(0, len(x), size)]


def _against_onnxruntime(model: _Model, images: Images, threads: int) -> float:
    """Difference of the outputs for the test images to onnxruntime's."""
    engine = open_engine("onnxruntime", model.path, Setting(threads))
    return difference([model.outputs], engine.run({"x": images.test_x}))


def _row(model: _Model, images: Images, result: Result) -> StoryRow:
    times = {row.engine: row for row in result.rows if row.model == model.path.name}
    own, other = times["prunus"], times["onnxruntime"]
    assert own.median_ms is not None and other.median_ms is not None, "timed, for outputs agreed"
    right = model.outputs.argmax(1) == images.test_y
    return StoryRow(
        model.name, model.sparsity, float(right.mean()), model.torch_accuracy,
        model.path.stat().st_size, model.path.with_suffix(".prunus").stat().st_size,
        own.median_ms, other.median_ms, paired_ratio(own, other),
    )  # fmt: skip


def _summary(rows: tuple[StoryRow, ...], images: Images, worst: float, threads: int) -> list[str]:
    dense, sparse = rows
    ratio = sparse.against_onnxruntime
    return [
        f"{images.name}: {len(images.train_y)} training and {len(images.test_y)} test images; "
        f"accuracy {dense.accuracy:.2%} -> {sparse.accuracy:.2%} with "
        f"{sparse.sparsity:.1%} of the pruned layers' weights gone",
        f"artefact {dense.artefact_bytes / 1e6:.2f} -> {sparse.artefact_bytes / 1e6:.2f} MB",
        f"Prunus {dense.prunus_ms:.3f} -> {sparse.prunus_ms:.3f} ms an image, "
        f"ONNX Runtime {dense.onnxruntime_ms:.3f} -> {sparse.onnxruntime_ms:.3f} ms "
        f"({threads} thread(s), batch 1, medians)",
        f"the pruned network is {ratio.median:.2f} times as fast in Prunus as in ONNX Runtime "
        f"(quartiles {ratio.lower:.2f}..{ratio.upper:.2f}); outputs differ by {worst:.0e} of the "
        "largest",
    ]


def _within(what: str, progress: Progress) -> Progress:
    return lambda step: progress(f"{what}: {step}")
