"""Tables of layers, as several verbs show them."""

from collections.abc import Sequence

from prunus.cli.output import Printer, number
from prunus.runtime.report import ExplainRow, ProfileRow


def explain_table(printer: Printer, rows: Sequence[ExplainRow]) -> None:
    """Which kernel each layer got, why not another, and how far it is from the best it could do here."""
    printer.table(
        ("node", "op", "kernel", "scheme", "sparsity", "least ms", "of roofline", "bound", "reason", "refused"),
        [
            (
                row.node, row.op, row.kernel, row.scheme or "-", number(row.sparsity, 4),
                number(row.roofline_ms, 4), percent(row.roofline), row.bound or "-", row.reason,
                "; ".join(f"{kernel}: {why}" for kernel, why in row.refused),
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
            percent(row.of_peak), percent(row.roofline), row.bound or "-",
        )
        for row in rows
    ]  # fmt: skip
    columns = (
        "node",
        "op",
        "kernel",
        "scheme",
        "sparsity",
        "ms",
        "share",
        "GFLOP/s",
        "of peak",
        "of roofline",
        "bound",
    )
    printer.table(columns, cells)
    printer.line(f"sum {total:.3f} ms")


def percent(share: float | None) -> str:
    """A share as whole percent, - for none."""
    return "-" if share is None else f"{share:.0%}"
