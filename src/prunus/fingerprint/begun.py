"""Examples made so far, kept beside the file that they will be in, so that making them goes on where it stopped."""

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FingerprintError
from prunus.fingerprint.domain import Domain
from prunus.fingerprint.make import Begun
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import Owner
from prunus.runtime.atomic import SECRET, write_atomically


def task_of(owner: Owner, domain: Domain, method: Method, n: int, images: NDArray[np.float32] | None) -> str:
    """A hash of all that decides on the examples but the secret."""
    pictures = "" if images is None else hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    text = json.dumps([owner.digest, asdict(domain), asdict(method), n, pictures])
    return hashlib.sha256(text.encode()).hexdigest()


def keep_begun(path: Path, task: str, begun: Begun) -> None:
    """Raises OutputError: it can't be written."""
    stream = io.BytesIO()
    secret = np.frombuffer(begun.secret, np.uint8)
    np.savez(stream, task=np.array(task), secret=secret, examples=begun.examples)
    write_atomically(path, stream.getvalue(), SECRET)


def read_begun(path: Path, task: str) -> Begun | None:
    """What was kept of this task; None: nothing, or of another.

    Raises FingerprintError: it can't be read.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["task"]) != task:
                return None
            return Begun(file["secret"].tobytes(), file["examples"])
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise FingerprintError(f"{path}: examples begun that can't be read; delete it to begin anew") from error
