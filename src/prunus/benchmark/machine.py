"""This machine, as far as it matters to compiled networks; its peak is measured, not looked up."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import final

from prunus.errors import MissingExtraError, PrunusError
from prunus.extras import missing_package
from prunus.runtime.cpu import Cpu, describe

PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "ncnn", "MNN", "ai-edge-litert", "torch", "ziglang")


@final
@dataclass(frozen=True)
class Machine:
    """A CPU with its compiler; sizes in bytes, None and 0 are unknown.

    compiler: its version, or why there is none. peak_gflops: fused multiply-adds of float32 in
    registers, one thread, measured. packages: installed versions, None where missing. advice: what
    will be fast here, one line each.
    """

    cpu: str
    architecture: str
    target: str | None
    targets: tuple[str, ...]
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    physical_cores: int
    compiler: str
    peak_gflops: float | None
    packages: dict[str, str | None]
    advice: tuple[str, ...]


def examine_machine(cc: str | None = None) -> Machine:
    """Describe this machine, with the C compiler `cc` (None: PRUNUS_CC, else the packaged one).

    The first call builds the kernel library, which takes some seconds.
    """
    cpu = describe()
    compiler, peak = _measure(cpu, cc)
    return Machine(
        cpu.name, cpu.machine, cpu.best_target, cpu.targets, cpu.l1_bytes, cpu.l2_bytes,
        cpu.l3_bytes, cpu.physical_cores, compiler, peak,
        {package: _version(package) for package in PACKAGES}, tuple(_advice(cpu)),
    )  # fmt: skip


def _measure(cpu: Cpu, cc: str | None) -> tuple[str, float | None]:
    """The compiler's version and the peak in GFLOP/s; or why not, and None."""
    try:
        from prunus.kernels.peak import measure
        from prunus.kernels.toolchain import find
    except ModuleNotFoundError as error:
        lack = missing_package("compiling", error)
        if not isinstance(lack, MissingExtraError):
            raise
        return f"none: {lack}", None
    try:
        compiler = find(cc)
        if cpu.best_target is None:
            return compiler.version, None
        return compiler.version, measure(cc=cc)
    except PrunusError as error:
        return f"none: {error}", None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _advice(cpu: Cpu) -> list[str]:
    if cpu.best_target is None:
        return [f"no target of Prunus runs on {cpu.machine}: networks can't be compiled here"]
    lines = [
        "block-column, bcr, punched, pattern, channel and filter: rows that share their columns "
        "run in groups, near the peak from 4 rows on",
        "unstructured: one row at a time, about a third of the peak",
    ]
    if cpu.best_target == "x86-64":
        lines.append("neither AVX2 nor AVX-512: vectors of 4 without fused multiply-add")
    if cpu.l2_bytes:
        lines.append(f"batch-1 matrices (Gemm, GRU, LSTM) stay in L2 below {cpu.l2_bytes // 4:,} kept weights")
    return lines


def describe_cpu() -> dict[str, str | int]:
    """Name, best target and physical cores, for results that are kept."""
    cpu = describe()
    return {
        "name": cpu.name,
        "target": cpu.best_target or "none",
        "physical_cores": cpu.physical_cores,
    }
