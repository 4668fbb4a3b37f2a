"""Writing files whole or not at all: beside the target, then renamed over it."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prunus.errors import OutputError

Buffer = bytes | bytearray | memoryview


SECRET = 0o600  # the mode of a file that only its owner may read


def write_atomically(path: Path | str, data: Buffer | Iterable[Buffer], mode: int | None = None) -> None:
    """Write `data` (one buffer, or several one after the other) to `path`, replacing what is there.

    mode: of a file that is new; None: as the process's mask has it.

    A link is followed: its target is replaced. What isn't a plain file (/dev/null, a pipe) is
    written to directly.
    Raises OutputError: the folder is missing or can't be written, or the disk is full; nothing
    half-written stays, and a file that was there keeps its contents.
    """
    path = Path(path)
    buffers = [data] if isinstance(data, bytes | bytearray | memoryview) else data
    try:
        target = path.resolve()
        if target.is_dir():
            raise OutputError(f"{path}: is a folder, expected a file")
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                stream.writelines(buffers)
        else:
            _write_beside(target, buffers, mode)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def check_writable(path: Path | str) -> None:
    """Fail before long work where `write_atomically` would fail after it, as far as can be told; writes nothing.

    Raises OutputError: the path is a folder, its folder is missing, or either can't be written.
    """
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise OutputError(f"{path}: is a folder, expected a file")
        if not target.parent.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def _write_beside(target: Path, buffers: Iterable[Buffer], new: int | None) -> None:
    """Write to a new file in the folder of `target` and rename it to `target`."""
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask() if new is None else new
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied")
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:200]}.", dir=target.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(buffers)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(mode)
        beside.replace(target)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _umask() -> int:
    """The process's mask for new files; there is no call that only reads it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
