"""Whom to ask: anything that answers inputs with labels or scores, seen from outside only."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FingerprintError, SuspectError
from prunus.runtime.session import Session, load, onnxruntime_errors

Batch = NDArray[np.float32]


@final
@dataclass(frozen=True, eq=False)
class Suspect:
    """answer: float32[n, ...] to labels[n] or scores[n, classes]. shape: of a sample, with None for what is free;
    classes: how many there are: None where that isn't known before it answers. batch: how many samples it takes at a
    time, where that is fixed. digest: SHA-256 of its file.
    """

    name: str
    answer: Callable[[Batch], NDArray[Any]]
    shape: tuple[int | None, ...] | None = None
    classes: int | None = None
    batch: int | None = None
    digest: str = ""

    def check(self, shape: tuple[int, ...], classes: int) -> None:
        """Raises SuspectError: it takes other inputs, or tells other classes apart."""
        if self.shape is not None and not _fits(self.shape, shape):
            found = ", ".join("?" if n is None else str(n) for n in self.shape)
            raise SuspectError(f"{self.name}: takes inputs of [{found}], expected {list(shape)} for a sample")
        if self.classes is not None and self.classes != classes:
            raise SuspectError(f"{self.name}: tells {self.classes} classes apart, expected {classes}")

    def labels(self, x: Batch, classes: int) -> NDArray[np.int64]:
        """int64[n]: its answers to a batch.

        Raises SuspectError: they are no labels below `classes`, nor scores of so many.
        """
        size = self.batch or len(x)
        found = [
            _labels(self, self.answer(_full(x[i : i + size], size)), size, classes) for i in range(0, len(x), size)
        ]
        return np.concatenate(found)[: len(x)]

    def scores(self, x: Batch) -> NDArray[np.float64]:
        """float64[n, classes], for measures that need more than labels.

        Raises SuspectError: it answers with labels only.
        """
        size = self.batch or len(x)
        parts = [np.asarray(self.answer(_full(x[i : i + size], size))) for i in range(0, len(x), size)]
        if any(part.ndim != 2 for part in parts):
            raise SuspectError(f"{self.name}: answers with labels only, expected scores [n, classes]")
        return np.concatenate(parts)[: len(x)].astype(np.float64)


def suspect_of_file(path: Path, engine: str = "onnxruntime", threads: int | None = None) -> Suspect:
    """An ONNX file, run by onnxruntime or compiled by Prunus, or an artefact.

    Raises SuspectError: it hasn't one input and at least one output, or can't be opened. As `prunus.compile` and
    `prunus.load` for those.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SuspectError(f"{path}: {error.strerror or error}") from error
    if path.suffix == ".prunus":
        session: Any = load(path, threads=threads)
    elif engine == "prunus":
        from prunus.compiler.compile import compile

        session = compile(path, threads=threads, tune="off")
    elif engine == "onnxruntime":
        session = _onnxruntime(path, threads)
    else:
        raise SuspectError(f"engine {engine!r}: expected onnxruntime or prunus")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise SuspectError(f"{path}: found {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
    if inputs[0].type != "tensor(float)":
        raise SuspectError(f"{path}: takes {inputs[0].type}, expected tensor(float)")
    first = list(inputs[0].shape)
    if not first:
        raise SuspectError(f"{path}: takes single numbers, expected batches")
    last = outputs[0].shape[-1] if len(outputs[0].shape) == 2 else None
    name, output = inputs[0].name, outputs[0].name
    return Suspect(
        path.name,
        partial(_run, path, session, name, output),
        tuple(n if isinstance(n, int) else None for n in first[1:]),
        last if isinstance(last, int) else None,
        first[0] if isinstance(first[0], int) else None,
        digest,
    )


def _run(path: Path, session: Any, name: str, output: str, x: Batch) -> NDArray[Any]:
    """Raises SuspectError: onnxruntime can't run it on these inputs."""
    if isinstance(session, Session):
        return session.run([output], {name: x})[0]
    try:
        return np.asarray(session.run([output], {name: x})[0])
    except onnxruntime_errors() as error:
        reason = (str(error).splitlines() or ["no reason"])[0]
        raise SuspectError(f"{path}: can't be run on {list(x.shape)}: {reason[:200]}") from error


def _onnxruntime(path: Path, threads: int | None) -> Any:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (*onnxruntime_errors(), InvalidProtobuf) as error:
        reason = (str(error).splitlines() or ["no reason"])[0]
        raise SuspectError(f"{path}: not an ONNX file that onnxruntime opens: {reason[:200]}") from error


def _fits(own: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(own) == len(shape) and all(a is None or a == b for a, b in zip(own, shape, strict=True))


def _full(x: Batch, size: int) -> Batch:
    """Filled up to a fixed batch with its last sample."""
    missing = size - len(x)
    return np.concatenate([x, np.repeat(x[-1:], missing, 0)]) if missing > 0 else x


def _labels(suspect: Suspect, found: NDArray[Any], n: int, classes: int) -> NDArray[np.int64]:
    found = np.asarray(found)
    if found.shape[:2] == (n, classes) and found.size == n * classes:  # also [n, classes, 1, 1]
        found = found.reshape(n, classes)
    if found.shape == (n, classes):
        if not np.isfinite(found.astype(np.float64)).all():
            raise SuspectError(f"{suspect.name}: answers with scores that aren't finite")
        best: NDArray[np.int64] = found.argmax(1).astype(np.int64)
        return best
    if found.shape == (n,) and found.dtype.kind in "iu":
        if len(found) and not (found.min() >= 0 and found.max() < classes):
            raise SuspectError(f"{suspect.name}: answers with label {found.max()}, expected 0 to {classes - 1}")
        return found.astype(np.int64)
    raise SuspectError(
        f"{suspect.name}: answers {found.dtype}{list(found.shape)}, expected labels [{n}] or scores [{n}, {classes}]"
    )


def check_null(model: Suspect, owner: str) -> None:
    """Raises SuspectError: it is the owner's network itself, by the SHA-256 of its file."""
    if model.digest and model.digest == owner:
        raise SuspectError(f"{model.name}: found the owner's own network, expected a null model independent of it")


def match_count(labels: NDArray[np.int64], targets: NDArray[np.int64]) -> int:
    """How many answers are the target."""
    if labels.shape != targets.shape:
        raise FingerprintError(f"found {len(labels)} answers, expected {len(targets)}")
    return int((labels == targets).sum())
