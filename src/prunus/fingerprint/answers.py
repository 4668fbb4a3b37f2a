"""Asking a suspect all examples, a few at a time; what it answered is kept, so that asking goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FingerprintError, SuspectError
from prunus.fingerprint.endpoint import EndpointError
from prunus.fingerprint.file import Fingerprint
from prunus.fingerprint.suspects import Suspect
from prunus.runtime.atomic import write_atomically

AT_ONCE = 20


@final
@dataclass(frozen=True, eq=False)
class Answers:
    """labels[n]: what the suspect called each example; failures: requests that were not answered at first."""

    labels: NDArray[np.int64]
    failures: int = 0


def ask(
    suspect: Suspect,
    fingerprint: Fingerprint,
    keep: Path | None = None,
    failures: Callable[[], int] = lambda: 0,
    report: Callable[[object], None] = lambda step: None,
) -> Answers:
    """All answers. keep: a JSON file of those that came so far, of this suspect and fingerprint; failures: how many
    requests failed until now, this time.

    Raises SuspectError: as `Suspect.check` and `labels`. EndpointError: it stopped answering; says how far it got.
    FingerprintError: the kept answers are others'.
    """
    suspect.check(fingerprint.shape, fingerprint.classes)
    labels, before = _kept(keep, suspect, fingerprint)
    n = len(fingerprint.targets)
    while len(labels) < n:
        report(f"{suspect.name}: {len(labels)} of {n} answers")
        part = fingerprint.examples[len(labels) : len(labels) + AT_ONCE]
        try:
            labels += suspect.labels(fingerprint.domain.values(part), fingerprint.classes).tolist()
        except EndpointError as error:
            _keep(keep, suspect, fingerprint, labels, before + failures())
            where = "" if keep is None else f", kept in {keep}: run again to go on"
            raise SuspectError(f"{error}; {len(labels)} of {n} examples answered{where}") from error
        if len(labels) < n:
            _keep(keep, suspect, fingerprint, labels, before + failures())
    if keep is not None:
        keep.unlink(missing_ok=True)
    return Answers(np.array(labels, np.int64), before + failures())


def _keep(path: Path | None, suspect: Suspect, fingerprint: Fingerprint, labels: list[int], failures: int) -> None:
    if path is not None:
        found = {**_whose(suspect, fingerprint), "labels": labels, "failures": failures}
        write_atomically(path, json.dumps(found).encode())


def _kept(path: Path | None, suspect: Suspect, fingerprint: Fingerprint) -> tuple[list[int], int]:
    if path is None or not path.exists():
        return [], 0
    try:
        found = json.loads(path.read_text())
        labels, failures = [int(label) for label in found["labels"]], int(found["failures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FingerprintError(f"{path}: no answers that can be read; delete it to begin anew") from error
    for key, value in _whose(suspect, fingerprint).items():
        if found.get(key) != value:
            raise FingerprintError(
                f"{path}: {key}: found {found.get(key)!r}, expected {value!r}; delete it to begin anew"
            )
    return labels[: len(fingerprint.targets)], failures


def _whose(suspect: Suspect, fingerprint: Fingerprint) -> dict[str, str]:
    return {"fingerprint": fingerprint.root, "suspect": suspect.name, "digest": suspect.digest}
