"""Tables of layers, as several verbs show them."""

from collections.abc import Sequence

from prunus.cli.output import Printer, number
from prunus.runtime.report import ExplainRow, ProfileRow


def explain_table(printer: Printer, rows: Sequence[ExplainRow]) -> None:
    """Which kernel each layer got, and why not another."""
    printer.table(
        ("node", "op", "kernel", "scheme", "sparsity", "reason", "refused"),
        [
            (
                row.node, row.op, row.kernel, row.scheme or "-", number(row.sparsity, 4),
                row.reason, "; ".join(f"{kernel}: {why}" for kernel, why in row.refused),
            )
            for row in rows
        ],
    )  # fmt: skip


def profile_table(printer: Printer, rows: Sequence[ProfileRow]) -> None:
    """Time of each node, slow and fast, in the order of the network, and the sum."""
    total = sum(row.ms for row in rows)
    cells = [
        (
            row.node, row.op, row.kernel, row.scheme or "-", number(row.sparsity, 4),
            f"{row.ms:.4f}", f"{row.ms / total:.1%}" if total else "-", number(row.gflops, 1),
            "-" if row.roofline is None else f"{row.roofline:.0%}",
        )
        for row in rows
    ]  # fmt: skip
    columns = ("node", "op", "kernel", "scheme", "sparsity", "ms", "share", "GFLOP/s", "of peak")
    printer.table(columns, cells)
    printer.line(f"sum {total:.3f} ms")
