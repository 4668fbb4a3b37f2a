"""Which C compiler, and how it is called: clang out of the ziglang package, or the one the user names."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import ToolchainError
from prunus.kernels.isa import Isa

# -ffp-contract: multiply and add become one instruction. No -ffast-math: NaN and infinity keep their meaning.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-pthread")


@dataclass(frozen=True)
class Compiler:
    """A C compiler: the command, and what it says of itself. `packaged` is the clang that ziglang brings."""

    command: tuple[str, ...]
    version: str
    packaged: bool

    def arguments(self, isa: Isa) -> tuple[str, ...]:
        """The flags that select `isa`."""
        if self.packaged:
            return ("-target", isa.triple, *isa.flags, "-g0")
        return isa.system_flags


def find(cc: str | None = None) -> Compiler:
    """The compiler to use: `cc` (a command, with arguments if need be), else PRUNUS_CC, else the packaged clang.

    Raises ToolchainError: the command doesn't exist or doesn't run, or ziglang isn't installed.
    """
    asked = cc or os.environ.get("PRUNUS_CC")
    if asked:
        command = tuple(shlex.split(asked))
        if not command or shutil.which(command[0]) is None:
            raise ToolchainError(f"C compiler {asked!r}: no such command")
        return Compiler(command, _version(command), False)
    if importlib.util.find_spec("ziglang") is None:
        raise ToolchainError(
            'no C compiler: the package ziglang is not installed (pip install "prunus[compile]"), and neither --cc nor '
            "PRUNUS_CC names another"
        )
    command = (sys.executable, "-m", "ziglang", "cc")
    return Compiler(command, "ziglang " + _version((sys.executable, "-m", "ziglang", "version")), True)


def build(compiler: Compiler, isa: Isa, folder: Path, unit: str, output: str, extra: tuple[str, ...] = ()) -> None:
    """Compile `folder/unit` for `isa` into the shared library `folder/output`.

    Raises ToolchainError: the compiler failed; the message has its first lines.
    """
    command = [*compiler.command, *compiler.arguments(isa), *FLAGS, f"-DVB={isa.vector_bytes}", "-I.", *extra]
    command += ["-shared", "-Wl,-s", unit, "-o", output, "-lm"]
    run(command, folder)


def run(command: list[str], folder: Path) -> None:
    """Run a compiler's command in a folder.

    Raises ToolchainError: it can't be started or says no.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolchainError(f"C compiler {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = " / ".join(([line for line in lines if "error:" in line] or lines)[:3])
        raise ToolchainError(f"C compiler failed ({shlex.join(command[:4])} ...): {said}")


def _version(command: tuple[str, ...]) -> str:
    arguments = () if command[-1] == "version" else ("--version",)
    try:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolchainError(f"C compiler {shlex.join(command)}: {error.strerror}") from error
    if done.returncode:
        raise ToolchainError(f"C compiler {shlex.join(command)}: {(done.stderr or 'no version').splitlines()[0]}")
    return done.stdout.splitlines()[0] if done.stdout else "unknown version"
