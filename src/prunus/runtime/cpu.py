"""What this machine's CPU can do: features, caches, cores. Read from the kernel's files; nothing is executed."""

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

# Targets in order of preference, with the CPU features (as Linux spells them) that their code uses. An artefact names
# its target; `load` refuses where a feature is missing.
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2")
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86-64-avx512-bf16": ("x86_64", (*_AVX512, "avx512_vnni", "avx512_bf16")),
    "x86-64-avx512-vnni": ("x86_64", (*_AVX512, "avx512_vnni")),
    "x86-64-avx512": ("x86_64", _AVX512),
    "x86-64-avx2": ("x86_64", ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe")),
    "x86-64": ("x86_64", ()),
    "aarch64-i8mm": ("aarch64", ("asimddp", "i8mm", "bf16")),
    "aarch64-neon": ("aarch64", ()),
}  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """A CPU: sizes in bytes, 0 where unknown. `targets` are those of TARGETS that it can run, best first."""

    name: str
    machine: str
    features: frozenset[str]
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    physical_cores: int
    targets: tuple[str, ...]

    @property
    def best_target(self) -> str | None:
        """The fastest target this CPU runs, or None."""
        return self.targets[0] if self.targets else None

    def missing(self, target: str) -> tuple[str, ...]:
        """The features of `target` that this CPU lacks; its machine's name when it is another architecture."""
        machine, features = TARGETS[target]
        if machine != self.machine:
            return (machine,)
        return tuple(feature for feature in features if feature not in self.features)


def describe() -> Cpu:
    """The CPU of this machine, as far as this process may use it."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    features = frozenset((fields.get("flags") or fields.get("Features") or "").split())
    caches = _caches()
    name = fields.get("model name") or platform.processor() or machine
    l1, l2, l3 = (caches.get(level, 0) for level in (1, 2, 3))
    found = Cpu(name, machine, features, l1, l2, l3, physical_cores(), ())
    return replace(found, targets=tuple(target for target in TARGETS if not found.missing(target)))


def physical_cores() -> int:
    """Number of physical cores this process may run on, at least 1."""
    return max(len(_cores()), 1)


def spread_cpus() -> list[int]:
    """The CPUs this process may run on, a core's first ones before its second ones: as many in a row as there are cores
    share none, wherever the row starts, if all cores have as many CPUs."""
    cores = _cores().values()
    return [core[turn] for turn in range(max(map(len, cores), default=0)) for core in cores if turn < len(core)]


def _cores() -> dict[str, list[int]]:
    """The CPUs this process may run on, by physical core."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores: dict[str, list[int]] = {}
    for cpu in sorted(allowed):
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        cores.setdefault(siblings, []).append(cpu)
    return cores


def _caches() -> dict[int, int]:
    """Data cache bytes by level, of CPU 0."""
    found: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            scale = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 1)
            found[int(level)] = int(size.rstrip("KM")) * scale
    return found
