"""Kernel libraries, built once per ISA, compiler and source, and kept in a cache folder.

An entry's name is the hash of everything that goes in, so it is never stale. It is written beside and renamed under a
lock: processes that build the same one at once wait for the first.
"""

import hashlib
import tempfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from prunus.errors import OutputError, TargetError
from prunus.kernels import toolchain
from prunus.kernels.isa import ISAS, Isa, isa_of
from prunus.kernels.source import sources


def cache_folder() -> Path:
    """Where kernel libraries and measured times are kept."""
    return user_cache_path("prunus")


def isa_for(target: str) -> Isa:
    """The ISA of a target's name.

    Raises TargetError: there is none of that name.
    """
    if target not in {isa.target for isa in ISAS}:
        raise TargetError(f"target {target!r}: expected one of {', '.join(isa.target for isa in ISAS)}")
    return isa_of(target)


def kernel_library(isa: Isa, cc: str | None = None, folder: Path | None = None) -> bytes:
    """The kernel library of `isa`: the bytes of a shared object, built if the cache lacks it.

    Raises ToolchainError: no compiler, or it failed. OutputError: the cache folder can't be written.
    """
    compiler = toolchain.find(cc)
    texts = sources(isa)
    key = hashlib.sha256(repr((compiler, isa, toolchain.FLAGS, sorted(texts.items()))).encode()).hexdigest()[:24]
    folder = folder or cache_folder() / "kernels"
    path = folder / f"{isa.target}-{key}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _build(compiler, isa, texts, path)
        return path.read_bytes()
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: {error.strerror} (kernel cache)") from error


def _build(compiler: toolchain.Compiler, isa: Isa, texts: dict[str, str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for name, text in texts.items():
            (Path(scratch) / name).write_text(text, encoding="utf-8")
        toolchain.build(compiler, isa, Path(scratch), "executor.c", "library.so")
        (Path(scratch) / "library.so").replace(path)
