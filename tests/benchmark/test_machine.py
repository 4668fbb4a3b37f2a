"""What doctor says of this machine."""

import numpy as np

from prunus.benchmark.machine import PACKAGES, examine_machine
from prunus.runtime.cpu import describe


def test_this_machine() -> None:
    machine = examine_machine()
    cpu = describe()
    assert (machine.cpu, machine.target, machine.physical_cores) == (cpu.name, cpu.best_target, cpu.physical_cores)
    assert machine.packages["numpy"] == np.__version__
    assert set(machine.packages) == set(PACKAGES)
    assert machine.advice
    if cpu.best_target is not None:
        assert machine.peak_gflops is not None and 0.5 < machine.peak_gflops < 2000


def test_no_compiler_is_said_not_raised() -> None:
    machine = examine_machine(cc="quince-cc")
    assert machine.compiler.startswith("none: ")
    assert "quince-cc" in machine.compiler
    assert machine.peak_gflops is None
