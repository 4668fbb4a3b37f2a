"""prunus doctor: what this machine can do for compiled networks."""

from prunus.cli.options import Cc, Json, Quiet, Verbose
from prunus.cli.output import Printer, number

EXAMPLE = "prunus doctor"


def doctor(cc: Cc = None, json: Json = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show CPU, caches, compiler, measured peak, and what will be fast here."""
    from prunus.benchmark.machine import examine_machine

    printer = Printer(quiet, json)
    with printer.progress("doctor") as step:
        step("building the kernel library, measuring the peak")
        machine = examine_machine(cc)
    caches = (("L1", machine.l1_bytes), ("L2", machine.l2_bytes), ("L3", machine.l3_bytes))
    peak = f"{number(machine.peak_gflops, 1)} GFLOP/s, one thread, float32, measured"
    rows = [
        ("CPU", machine.cpu),
        ("architecture", machine.architecture),
        ("target", machine.target or "none"),
        ("other targets", ", ".join(machine.targets[1:]) or "none"),
        ("caches", ", ".join(f"{name} {_size(n_bytes)}" for name, n_bytes in caches)),
        ("physical cores", str(machine.physical_cores)),
        ("C compiler", machine.compiler),
        ("peak", "not measured" if machine.peak_gflops is None else peak),
        *((name, found or "not installed") for name, found in machine.packages.items()),
    ]
    printer.table(("what", "found"), rows)
    for line in machine.advice:
        printer.line(f"- {line}")
    printer.write_json(machine)


def _size(n_bytes: int) -> str:
    if not n_bytes:
        return "unknown"
    return f"{n_bytes >> 20} MiB" if n_bytes >= 1 << 20 else f"{n_bytes >> 10} KiB"
