"""Ways to run a plan on every ISA of the list: in this process, or as a program under an emulator or sanitizers."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from prunus.kernels import toolchain
from prunus.kernels.isa import ISAS, Isa, isa_of
from prunus.kernels.library import cache_folder, kernel_library
from prunus.kernels.source import sources
from prunus.runtime.cpu import describe
from prunus.runtime.native import Library, open_library

Array = NDArray[Any]


class Runner(ABC):
    """Runs records on spaces. `isa` says what the code was built for."""

    def __init__(self, name: str, isa: Isa) -> None:
        self.name, self.isa = name, isa

    @abstractmethod
    def run(
        self, plan: Array, tables: Array, constants: Array, arena: Array, ports: list[Array], scratch: int, threads: int
    ) -> None:
        """Run; `arena` and `ports` (float32, C order) are changed in place."""


@final
class InProcess(Runner):
    """The kernel library itself."""

    def run(
        self, plan: Array, tables: Array, constants: Array, arena: Array, ports: list[Array], scratch: int, threads: int
    ) -> None:
        library = _library(self.isa)
        spaces = [arena, constants, tables, *ports]
        pointers = (ctypes.c_void_p * len(spaces))(*(space.ctypes.data for space in spaces))
        memory = np.zeros(scratch * threads + 1, np.float32)
        pool = library.pool_open(threads)
        library.run(
            pool, plan.ctypes.data, plan.ctypes.data + plan.nbytes, pointers, len(spaces), memory.ctypes.data, scratch,
            None,
        )  # fmt: skip
        library.pool_close(pool)


@cache
def _library(isa: Isa) -> Library:
    return open_library(kernel_library(isa))


@final
class Program(Runner):
    """The driver as a program, behind a command such as an emulator's."""

    def __init__(
        self, name: str, isa: Isa, prefix: tuple[str, ...], flags: tuple[str, ...], compiler: toolchain.Compiler
    ) -> None:
        super().__init__(name, isa)
        self.prefix, self.flags, self.compiler = prefix, flags, compiler

    def run(
        self, plan: Array, tables: Array, constants: Array, arena: Array, ports: list[Array], scratch: int, threads: int
    ) -> None:
        head = [plan.size, tables.size, constants.size, arena.size, scratch, threads, len(ports)]
        parts = [np.array([*head, *(port.size for port in ports)], np.int64), plan, tables, constants, arena, *ports]
        data = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        done = subprocess.run([*self.prefix, str(self.executable())], input=data, capture_output=True, check=False)
        assert done.returncode == 0, f"{self.name}: exit {done.returncode}: {done.stderr.decode()[:2000]}"
        result, at = np.frombuffer(done.stdout, np.float32), 0
        for space in (arena, *ports):
            space.ravel()[:] = result[at : at + space.size]
            at += space.size

    @cache  # noqa: B019 - runners live as long as the test run
    def executable(self) -> Path:
        """The driver."""
        return build("driver.c", self.isa, self.flags, self.compiler)


def build(unit: str, isa: Isa, flags: tuple[str, ...], compiler: toolchain.Compiler) -> Path:
    """The program of a C file of this folder, which may include the kernels' sources; built once and kept with the
    kernel libraries."""
    texts = sources(isa) | {unit: (Path(__file__).parent / unit).read_text()}
    key = hashlib.sha256(repr((isa, flags, compiler, sorted(texts.items()))).encode())
    path = cache_folder() / "tests" / f"{Path(unit).stem}-{key.hexdigest()[:24]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                for name, text in texts.items():
                    (Path(folder) / name).write_text(text)
                command = [*compiler.command, *compiler.arguments(isa), *toolchain.FLAGS, *flags]
                command += [f"-DVB={isa.vector_bytes}", "-I.", unit, "-o", "program", "-lm"]
                toolchain.run(command, Path(folder))
                (Path(folder) / "program").replace(path)
    return path


def wide_on_this_cpu() -> Isa:
    """The text of the AVX-512 kernels (16 lanes, its tiles), compiled for what this machine has: the compiler splits
    vectors, the index logic is the same."""
    host = isa_of(describe().best_target or "x86-64")
    wide = isa_of("x86-64-avx512")
    return replace(wide, triple=host.triple, flags=host.flags, system_flags=host.system_flags)


def runners() -> list[Runner]:
    """One runner per ISA of the list that can run here, and the widest text on this CPU."""
    found: list[Runner] = []
    for isa in ISAS:
        if isa.target in describe().targets:
            found.append(InProcess(isa.target, isa))
    if "x86-64-avx512" not in describe().targets:
        found.append(InProcess("x86-64-avx512 text on this CPU", wide_on_this_cpu()))
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator and "aarch64-neon" not in describe().targets:
        for target, options in (("aarch64-neon", ()), ("aarch64-i8mm", ("-cpu", "max"))):
            isa = replace(isa_of(target), triple="aarch64-linux-musl")
            found.append(Program(f"{target} in qemu", isa, (emulator, *options), ("-static",), toolchain.find()))
    return found


def this_isa() -> Isa:
    """The best ISA of this CPU."""
    return isa_of(describe().best_target or "x86-64")


def system_compiler() -> toolchain.Compiler | None:
    """A compiler that comes with sanitizers; None where the system has none."""
    cc = shutil.which("clang") or shutil.which("gcc") or shutil.which("cc")
    return None if cc is None else toolchain.find(cc)


def sanitizers(which: str) -> tuple[str, ...]:
    """The flags of a build under `which` sanitizers; the first finding ends the program."""
    return ("-g", "-O1", f"-fsanitize={which}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def sanitized() -> Runner | None:
    """The driver under AddressSanitizer and UndefinedBehaviorSanitizer, by a system compiler; None without one."""
    compiler = system_compiler()
    return compiler and Program("sanitizers", this_isa(), (), sanitizers("address,undefined"), compiler)
